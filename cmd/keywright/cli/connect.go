package cli

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"keywright.dev/kms/api"
)

// The places where a service is looked for: in the current folder, which may be
// anybody's, and where the unit has it, which is root's.
const (
	socketHere = "./keywright-data/operator.sock"
	socketUnit = "/run/keywright/operator.sock"
)

// socket returns the operator socket's path.
func (p *Program) socket(ctx context.Context) (string, error) {
	address := p.address
	if address == "" {
		address = p.Env("KEYWRIGHT_ADDR")
	}
	if address != "" {
		return socketOf(address)
	}
	return p.look(ctx)
}

// look returns the first of the default sockets that can be trusted and where a
// service answers; or why the first that is there is none.
func (p *Program) look(ctx context.Context) (string, error) {
	errHere := ownSocket(socketHere)
	if errHere == nil {
		errHere = answers(ctx, socketHere)
	}
	if errHere == nil {
		return socketHere, nil
	}
	errUnit := answers(ctx, socketUnit)
	switch {
	case errUnit == nil:
		return socketUnit, nil
	case !errors.Is(errHere, fs.ErrNotExist):
		return "", errHere
	case !errors.Is(errUnit, fs.ErrNotExist):
		return "", errUnit
	}
	return "", &errUnreachable{socketHere + " or " + socketUnit, os.ErrNotExist}
}

// ownSocket refuses a socket that another user made: in the current folder it
// would be that user who hears what this one says, and answers.
func ownSocket(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return &errUnreachable{path, err}
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return refusedf("%s belongs to another user: if you mean that service, name it with --addr", path)
	}
	return nil
}

func answers(ctx context.Context, path string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return reached(path, err)
	}
	_ = conn.Close() // nothing was said
	return nil
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
	path, err := p.socket(ctx)
	if err != nil {
		return none, err
	}
	client := api.NewOperatorClient(path)
	defer client.Close()
	answer, err := ask(ctx, client)
	if err != nil {
		return none, reached(path, err)
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
