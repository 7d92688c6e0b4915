package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"keywright.dev/unlock"
)

func parseFormat(h host, args []string) (*enrollFlags, error) {
	f := enrollFlags{fd: noFD}
	set := flags(h, "format")
	set.StringVar(&f.config, "config", unlock.DefaultConfig, "`FILE` of the configuration, which the volume is added to")
	set.StringVar(&f.mapping, "mapping", "", "`NAME` of the mapping below /dev/mapper (default: luks-UUID)")
	set.BoolVar(&f.noRecovery, "no-recovery-key", false, "add no recovery key to the volume: the secret that boots get is its only key then")
	set.StringVar(&f.uki, "uki", "", "unified kernel image `FILE` of the next boot (default: the only one on the EFI system partition)")
	err := set.Parse(args)
	if rest := set.Args(); err == nil && len(rest) > 0 {
		f.devices = list{rest[0]}
		err = set.Parse(rest[1:]) // flags may follow the device
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	case len(f.devices) == 0:
		return nil, fmt.Errorf("%w: name the DEVICE to format, such as /dev/vdb", errUsage)
	case set.NArg() > 0:
		return nil, fmt.Errorf("%w: %q is too much: one disk is formatted at a time", errUsage, set.Arg(0))
	}
	return &f, f.checkMapping()
}

func format(ctx context.Context, h host, args []string) error {
	f, err := parseFormat(h, args)
	if err != nil {
		return err
	}
	c, err := enrolledConfig(f.config)
	if err != nil {
		return err
	}
	if len(c.Volumes) == 0 {
		return fmt.Errorf("this machine is not enrolled, %s names no volume: run keywright-unlock enroll first", f.config)
	}
	e, done, err := h.addition(ctx, f, c)
	if err != nil {
		return err
	}
	defer done()
	formatted, err := e.Format(ctx)
	if err != nil {
		return err
	}
	for _, v := range formatted.Volumes {
		fmt.Fprintf(h.stdout, "\n%s is encrypted and open as /dev/mapper/%s: make a file system on that.\n", v.Device, v.Name)
		if len(v.RecoverySlots) == 0 {
			fmt.Fprint(h.stdout, `
note: the secret of the service is the only key of this volume: there is no
passphrase. Without the service what is on it is lost, so keep backups of both.
`)
		}
	}
	printAdded(h.stdout, formatted)
	return nil
}
