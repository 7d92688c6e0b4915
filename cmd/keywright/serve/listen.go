package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/server"
)

// listen opens the three listeners, or none.
func listen(ctx context.Context, s config.Server) (l server.Listeners, err error) {
	defer func() {
		if err != nil {
			closeListeners(l)
		}
	}()
	var lc net.ListenConfig
	if l.Guest, err = lc.Listen(ctx, "tcp", s.GuestListen); err != nil {
		return l, fmt.Errorf("opening the guest listener: %w", err)
	}
	if l.Metrics, err = lc.Listen(ctx, "tcp", s.MetricsListen); err != nil {
		return l, fmt.Errorf("opening the metrics listener: %w", err)
	}
	if l.Operator, err = listenUnix(ctx, lc, s.OperatorSocket); err != nil {
		return l, fmt.Errorf("opening the operator socket: %w", err)
	}
	return l, nil
}

func closeListeners(l server.Listeners) {
	for _, listener := range []net.Listener{l.Guest, l.Metrics, l.Operator} {
		if listener != nil {
			_ = listener.Close() // nothing was accepted yet
		}
	}
}

// listenUnix opens a socket that its owner alone can connect to. One that a
// dead process left behind is replaced. Whoever slips in before the mode is set
// is refused by the server, which asks the kernel who it is.
func listenUnix(ctx context.Context, lc net.ListenConfig, path string) (net.Listener, error) {
	if err := checkSocket(path); err != nil {
		return nil, err
	}
	listener, err := lc.Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(ctx, path) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		listener, err = lc.Listen(ctx, "unix", path)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// checkSocket refuses a path where something else than a socket is: binding
// would fail as it does on a socket that was left behind.
func checkSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is no socket: name another path", path)
	}
	return nil
}

func abandoned(ctx context.Context, path string) bool {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // somebody lives there
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func addrPort(l net.Listener) netip.AddrPort {
	bound, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return bound
}

func portOf(bound netip.AddrPort) string { return strconv.Itoa(int(bound.Port())) }
