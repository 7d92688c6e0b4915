package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"keywright.dev/kms/api"
	"keywright.dev/unlock"
)

// repin takes over the service keys that the service has now.
func repin(ctx context.Context, h host, args []string) error {
	set := flags(h, "repin")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	hook := set.Bool("hook", false, "as a unit of the system: warn and never fail; silent where this machine is not enrolled")
	if err := parse(set, args); err != nil {
		return err
	}
	err := takeOver(ctx, h, *config)
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

func takeOver(ctx context.Context, h host, path string) error {
	if _, err := enrolledConfig(path); err != nil {
		return err
	}
	r := &unlock.Repinning{
		ConfigPath: path, RunDir: h.run, Initramfs: h.initramfs, Out: h.stdout,
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

func pinServer(host string, client *api.GuestClient) unlock.PinServer {
	return unlock.PinServer{Host: host, PinService: client}
}
