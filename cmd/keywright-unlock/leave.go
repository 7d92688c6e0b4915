package main

import (
	"context"
	"fmt"

	"keywright.dev/unlock"
)

func leave(ctx context.Context, h host, args []string) error {
	var f enrollFlags
	set := flags(h, "leave")
	set.StringVar(&f.config, "config", unlock.DefaultConfig, "`FILE` of the configuration, which is removed")
	set.Var(&f.devices, "device", "`DEVICE` of a LUKS2 volume; may be given several times (default: all that are open)")
	set.IntVar(&f.fd, "passphrase-fd", noFD, "file `DESCRIPTOR` to read a passphrase from that opens without us (default: ask)")
	if err := parse(set, args); err != nil {
		return err
	}
	h.protect()
	devices, err := f.volumes()
	if err != nil {
		return err
	}
	err = (&unlock.Leaving{
		Devices: devices, Passphrase: f.passphrase(h), ConfigPath: f.config, RunDir: h.run,
		Initramfs: h.noInitramfs, Out: h.stdout,
	}).Run(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(h.stdout, "\nThis machine asks no service any more. The service still counts it: an operator ends that with keywright revoke, or lets it enroll there again with keywright machine readmit --re-enroll.")
	return nil
}
