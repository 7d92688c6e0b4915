package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/keyio"
	"keywright.dev/unlock"
)

// keyFlags are what a key command is told.
type keyFlags struct {
	config, keyring string
	size            uint
	job             keyio.Job
	files           keyio.Files
}

// key works with keys for the applications of a machine that runs with its own.
func key(ctx context.Context, h host, args []string) error {
	f, err := parseKey(h, args)
	if err != nil {
		return err
	}
	c, err := enrolledConfig(f.config)
	if err != nil {
		return err
	}
	h.protect()
	identity, closeTPM, err := h.identity(ctx, c, 0)
	if err != nil {
		return err
	}
	defer closeTPM()
	pins, err := c.Pins()
	if err != nil {
		return err
	}
	list, err := servers(c.Servers, keyServer)
	if err != nil {
		return err
	}
	use := unlock.KeyUse{
		TPM: identity, EventLog: c.EventLogPath(), Servers: list, Pins: pins,
		Operation: f.job.Operation, Keyring: f.keyring, Clock: h.clock,
		Note: func(format string, args ...any) { fmt.Fprintf(h.stderr, format+"\n", args...) },
	}
	f.job.In, f.job.Out = h.stdin, h.stdout
	tally, err := f.job.RunFiles(ctx, f.files, func(ctx context.Context, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
		// What is staged meanwhile would be newer than this quote.
		end, err := h.run.BeginStaging(ctx, h.clock)
		if err != nil {
			return nil, err
		}
		defer end()
		return use.Call(ctx, r)
	})
	return keyResult(h, tally, err)
}

func keyServer(host string, client *api.GuestClient) unlock.KeyServer {
	return unlock.KeyServer{Host: host, KeyService: client}
}

func parseKey(h host, args []string) (*keyFlags, error) {
	f := &keyFlags{}
	set := flags(h, "key wrap|unwrap|rewrap|data-key")
	set.StringVar(&f.config, "config", unlock.DefaultConfig, "`FILE` of the configuration")
	set.StringVar(&f.keyring, "keyring", "default", "`NAME` of the keyring")
	set.StringVar(&f.job.Context, "context", "", "`TEXT` that the wrapped form is bound to; no secret, and needed to unwrap it")
	set.StringVar(&f.files.Input, "input", "", "`FILE` to read, or fd:N (default: standard input)")
	set.StringVar(&f.files.Output, "output", "", "new `FILE` to write to, or fd:N (default: standard output)")
	set.StringVar(&f.files.Key, "key-output", "", "new `FILE` for the key that data-key makes, or fd:N")
	set.UintVar(&f.size, "size", 32, "`BYTES` of the key that data-key makes: 16, 32 or 64")
	set.BoolVar(&f.job.Batch, "batch", false, "read and write JSON lines, one for each item")
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		f.job.Operation, args = exchange.KeyOperation(args[0]), args[1:]
	}
	if err := parse(set, args); err != nil {
		return nil, err
	}
	if !slices.Contains(exchange.KeyOperations(), f.job.Operation) {
		return nil, fmt.Errorf("%w: say what to do: wrap, unwrap, rewrap or data-key", errUsage)
	}
	if f.size != 16 && f.size != 32 && f.size != 64 {
		return nil, fmt.Errorf("%w: a key has 16, 32 or 64 bytes", errUsage)
	}
	if f.job.Operation == exchange.KeyDataKey {
		f.job.Size = uint16(f.size)
	}
	return f, nil
}

// keyResult tells of items that failed; the rest was written.
func keyResult(h host, tally keyio.Tally, err error) error {
	var item *keyio.ItemError
	switch {
	case errors.As(err, &item):
		fmt.Fprintf(h.stderr, "keywright-unlock: KW-%04d %s: %s\n", api.Code(item.Code).Number(), item.Code, item.Detail)
		return verdict(unlock.ExitRefused)
	case errors.Is(err, keyio.ErrInput):
		return fmt.Errorf("%w: %w", errUsage, err)
	case err != nil:
		return err
	case tally.Failed > 0:
		fmt.Fprintf(h.stderr, "keywright-unlock: %d of %d items failed: see their code and detail\n", tally.Failed, tally.Items)
		return verdict(unlock.ExitInPart)
	default:
		return nil
	}
}
