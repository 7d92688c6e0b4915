package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"keywright.dev/kms/audit"
)

// Peer is the process at the other end of a unix socket, as the kernel says.
type Peer struct {
	UID int
	PID int
}

// CheckPeer admits the user that the service runs as, and root.
func CheckPeer(p Peer, owner int) error {
	if p.UID != owner && p.UID != 0 {
		return fmt.Errorf("uid %d may not operate a service of uid %d", p.UID, owner)
	}
	return nil
}

// actor is how the peer stands in the audit log and in policies.
func (p Peer) actor() audit.Actor {
	return audit.Actor{Kind: audit.ActorOperator, ID: fmt.Sprintf("uid/%d", p.UID)}
}

// PeerOf asks the kernel for the credentials that a peer had when it connected
// (SO_PEERCRED, unix(7)).
func PeerOf(conn net.Conn) (Peer, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}, errors.New("reading peer credentials: not a unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("reading peer credentials: %w", err)
	}
	var (
		credentials *syscall.Ucred
		optErr      error
	)
	err = raw.Control(func(fd uintptr) {
		credentials, optErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, optErr); err != nil {
		return Peer{}, fmt.Errorf("reading peer credentials: %w", err)
	}
	return Peer{UID: int(credentials.Uid), PID: int(credentials.Pid)}, nil
}

type peerKey struct{}

// withPeer is for [http.Server.ConnContext]. Without credentials the peer is
// nobody.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	peer, err := PeerOf(conn)
	if err != nil {
		peer = Peer{UID: -1}
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

func peerFrom(ctx context.Context) Peer {
	peer, ok := ctx.Value(peerKey{}).(Peer)
	if !ok {
		return Peer{UID: -1}
	}
	return peer
}
