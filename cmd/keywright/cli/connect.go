package cli

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"

	"keywright.dev/kms/api"
	"keywright.dev/kms/server"
)

// The places where a service is looked for: in the current folder, which may be
// anybody's, and where the unit has it, which is root's.
const (
	socketHere = "./keywright-data/operator.sock"
	socketUnit = "/run/keywright/operator.sock"
)

// socket is where a service is.
type socket struct {
	path string
	// found says that nobody named it, in a folder that may be anybody's: whoever
	// listens there has to be known.
	found bool
}

// socket returns the operator socket.
func (p *Program) socket(ctx context.Context) (socket, error) {
	address := p.address
	if address == "" {
		address = p.Env("KEYWRIGHT_ADDR")
	}
	if address != "" {
		path, err := socketOf(address)
		return socket{path: path}, err
	}
	return look(ctx)
}

// look returns the first of the default sockets where a service answers that can
// be trusted; or why the first that is there is none.
func look(ctx context.Context) (socket, error) {
	here, unit := socket{path: socketHere, found: true}, socket{path: socketUnit}
	errHere := here.answers(ctx)
	if errHere == nil {
		return here, nil
	}
	errUnit := unit.answers(ctx)
	switch {
	case errUnit == nil:
		return unit, nil
	case !errors.Is(errHere, fs.ErrNotExist):
		return here, errHere
	case !errors.Is(errUnit, fs.ErrNotExist):
		return unit, errUnit
	}
	return socket{}, &errUnreachable{socketHere + " or " + socketUnit, os.ErrNotExist}
}

func (s socket) answers(ctx context.Context) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return reached(s.path, err)
	}
	_ = conn.Close() // nothing was said
	return nil
}

// dial connects. Where another user listens, that user would hear what is asked,
// and answer.
func (s socket) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.path)
	if err != nil || !s.found {
		return conn, err
	}
	peer, err := server.PeerOf(conn)
	if err == nil && peer.UID != 0 && peer.UID != os.Geteuid() {
		err = refusedf("%s is another user's (uid %d): if you mean that service, name it with --addr", s.path, peer.UID)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func socketOf(address string) (string, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(address, "unix:"), "//")
	if strings.Contains(address, "://") && !strings.HasPrefix(address, "unix://") || path == "" {
		return "", usagef("the service is named by the path of its operator socket, such as unix:///run/keywright/operator.sock")
	}
	return path, nil
}

// call asks the service something.
func call[T any](ctx context.Context, p *Program, ask func(context.Context, *api.OperatorClient) (T, error)) (T, error) {
	var none T
	at, err := p.socket(ctx)
	if err != nil {
		return none, err
	}
	client := api.NewOperatorClientOver(at.dial)
	defer client.Close()
	answer, err := ask(ctx, client)
	if err != nil {
		return none, reached(at.path, err)
	}
	return answer, nil
}

// acting returns the client for a change, or for one that is only tried.
func acting(o *api.OperatorClient, dryRun bool) *api.OperatorClient {
	if dryRun {
		return o.DryRun()
	}
	return o
}

// on names what an error is about.
func on[T any](ref string, answer T, err error) (T, error) {
	if err != nil {
		return answer, &about{ref, err}
	}
	return answer, nil
}

// reference takes machine/web-17 and web-17, and refuses another kind.
func reference(kind, text string) (string, error) {
	before, rest, found := strings.Cut(text, "/")
	switch {
	case !found && text != "":
		return text, nil
	case found && before == kind && rest != "":
		return rest, nil
	default:
		return "", usagef("%q does not name a %s: write %s/NAME, or the name alone", text, kind, kind)
	}
}
