package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"keywright.dev/kms/api"
	"keywright.dev/unlock"
)

// repin takes over the service keys that the service has now.
func repin(ctx context.Context, h host, args []string) error {
	set := flags(h, "repin")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	hook := set.Bool("hook", false, "as a unit of the system: warn and never fail; silent where this machine is not enrolled")
	unstaged := set.Bool("unstaged", false, "make the initramfs even where the boot with it cannot be staged before: it may ask for a passphrase")
	if err := parse(set, args); err != nil {
		return err
	}
	err := takeOver(ctx, h, *config, *unstaged)
	switch {
	case err != nil && *hook && errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil && *hook:
		fmt.Fprintf(h.stderr, "W: keywright-unlock: this machine does not pin what the service wants it to: %v\n", err)
		return nil
	default:
		return err
	}
}

func takeOver(ctx context.Context, h host, path string, unstaged bool) error {
	if _, err := enrolledConfig(path); err != nil {
		return err
	}
	r := &unlock.Repinning{
		ConfigPath: path, RunDir: h.run, Initramfs: h.remake(path, unstaged), Out: h.stdout,
		Servers: func(c *unlock.Config) ([]unlock.PinServer, error) { return servers(c.Servers, pinServer) },
	}
	changed, err := r.Run(ctx)
	if err != nil {
		return err
	}
	if !changed {
		fmt.Fprintln(h.stdout, "this machine pins what the service wants it to")
		return nil
	}
	fmt.Fprintln(h.stdout, "this machine pins other service keys: its next boot shows the service that it does")
	return nil
}

// remake makes every initramfs anew where the boot with it gets its keys.
func (h host) remake(path string, unstaged bool) func(ctx context.Context) error {
	if h.initramfs == nil || h.ahead == nil || unstaged {
		return h.initramfs
	}
	return func(ctx context.Context) error {
		if err := h.stageAhead(ctx, path); err != nil {
			return fmt.Errorf("staging the boot with another initramfs, before that is made: %w; it is made once this goes through, or with --unstaged", err)
		}
		return h.asAhead(ctx)
	}
}

// stageAhead announces the boots with the initramfs to come, beside those that there
// are: wherever the power is cut, what boots then is staged.
func (h host) stageAhead(ctx context.Context, path string) error {
	c, err := unlock.LoadConfig(path)
	if err != nil {
		return err
	}
	// Not in memory: they may be large.
	folder, err := os.MkdirTemp("/var/tmp", "keywright-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	next := h.nextBoot(c, "")
	if next.Instead, err = h.ahead(ctx, folder); err != nil {
		return err
	}
	identity, closeTPM, err := h.identity(ctx, c, 0)
	if err != nil {
		return err
	}
	defer closeTPM()
	f, err := h.foreseeBoots(ctx, c, identity, next, false)
	switch {
	case err != nil:
		return err
	case f.Unknown != nil:
		return f.Unknown
	case f.Boots[0].Code != "":
		printBoot(h.stdout, f.Boots[0])
		return errors.New("it would get no keys")
	}
	return nil
}

func pinServer(host string, client *api.GuestClient) unlock.PinServer {
	return unlock.PinServer{Host: host, PinService: client}
}
