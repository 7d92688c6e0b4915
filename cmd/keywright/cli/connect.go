package cli

import (
	"context"
	"os"
	"strings"

	"keywright.dev/kms/api"
)

// socketPaths are where a service is looked for.
func socketPaths() []string {
	return []string{"./keywright-data/operator.sock", "/run/keywright/operator.sock"}
}

// socket returns the operator socket's path.
func (p *Program) socket() (string, error) {
	address := p.address
	if address == "" {
		address = p.Env("KEYWRIGHT_ADDR")
	}
	if address != "" {
		return socketOf(address)
	}
	paths := socketPaths()
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			return path, nil
		}
	}
	return "", &errUnreachable{strings.Join(paths, " or "), os.ErrNotExist}
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
	path, err := p.socket()
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
