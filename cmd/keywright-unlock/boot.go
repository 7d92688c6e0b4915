package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"keywright.dev/hsm/tpm"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

const tpmPatience = 10 * time.Second

func boot(ctx context.Context, h host, args []string) error {
	set := flags(h, "boot")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	deadline := set.Duration("deadline", 0, "how long to try, such as 90s; 0s never ends (default: the configuration's)")
	if err := parse(set, args); err != nil {
		return err
	}
	c, err := unlock.LoadConfig(*config)
	if err != nil {
		return h.show(err)
	}
	patience := c.Patience()
	if isSet(set, "deadline") {
		patience = *deadline
	}
	h.protect()
	return bootWith(ctx, h, c, unlock.After(h.clock, patience))
}

// show shows an error on the consoles, where a boot's failures belong.
func (h host) show(err error) error {
	h.announce(unlock.Line(err))
	return &announced{err}
}

// bootWith gathers what a boot needs and runs it. Whoever waits for its end
// waits for all of it.
func bootWith(ctx context.Context, h host, c *unlock.Config, deadline time.Time) error {
	end, err := h.run.BeginBoot()
	if err != nil {
		return h.show(err)
	}
	defer end()
	volumes, err := unlock.FindVolumes(ctx, c.Volumes, h.clock, deadline)
	if err != nil {
		return h.show(err)
	}
	defer func() { _ = volumes.Close() }()
	identity, closeTPM, err := h.identity(ctx, c, tpmPatience)
	if err != nil {
		return h.show(err)
	}
	defer closeTPM()
	list, err := servers(c.Servers)
	if err != nil {
		return h.show(err)
	}
	pins, err := c.Pins()
	if err != nil {
		return h.show(err)
	}
	b := &unlock.Boot{
		TPM: identity, EventLog: c.EventLogPath(), Servers: list, Pins: pins, Volumes: volumes,
		Unseal: h.unseal, Opener: h.opener, Clock: h.clock, Deadline: deadline, Random: rand.Float64,
		Announce: h.announce, Keep: h.run, Reboot: h.reboot,
	}
	if err := b.Run(ctx); err != nil {
		return &announced{err}
	}
	for _, v := range volumes {
		fmt.Fprintf(h.stderr, "keywright: opened %s as /dev/mapper/%s\n", v.Device.Name(), v.Config.Name)
	}
	return nil
}

func closeBoot(ctx context.Context, h host, args []string) error {
	set := flags(h, "close")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	root := set.String("root", "", "`DEVICE` of the root file system, or the directory where it is mounted, to be checked")
	if err := parse(set, args); err != nil {
		return err
	}
	c, err := unlock.LoadConfig(*config)
	unused := errors.Is(err, fs.ErrNotExist)
	if err != nil {
		c = &unlock.Config{}
	}
	if err != nil && !unused {
		// A broken file is no reason to leave PCR 15 as it is.
		fmt.Fprintf(h.stderr, "keywright-unlock: warning: %v\n", err)
	}
	patience := tpmPatience
	if unused {
		patience = 0
	}
	device, err := h.awaitTPM(ctx, c.TPMPath(), patience)
	if unused && errors.Is(err, fs.ErrNotExist) {
		return nil // nobody can ask for keys here, nor was this initramfs made for it
	}
	return h.closeWith(ctx, c, *root, device, err)
}

// closeWith closes with a device, or with the reason why there is none.
func (h host) closeWith(ctx context.Context, c *unlock.Config, root string, device *tpm.Device, missing error) error {
	release := func() {}
	defer func() { release() }()
	closing := &unlock.Closing{
		TPM: func() (unlock.ReleasePCR, error) {
			if missing != nil {
				return nil, missing
			}
			var pcr unlock.ReleasePCR
			pcr, release = h.releasePCR(device, c)
			return pcr, nil
		},
		Root: root, EndBoot: h.run.EndBoot, Opened: h.run.ReadOpened, Table: luks.ReadTable,
		Clock: h.clock, Announce: h.announce, Reboot: h.reboot,
	}
	if err := closing.Run(ctx); err != nil {
		return &announced{err}
	}
	return nil
}

// releasePCR gives PCR 15 through a session that nobody on the bus can answer
// for, or plainly where the TPM gives no keys: extended is what counts.
func (h host) releasePCR(device *tpm.Device, c *unlock.Config) (unlock.ReleasePCR, func()) {
	identity, err := identityOf(device, c)
	if err != nil {
		fmt.Fprintf(h.stderr, "keywright-unlock: warning: %v\n", err)
		return device, func() { _ = device.Close() }
	}
	return identity, func() { _ = errors.Join(identity.Close(), device.Close()) }
}
