package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/unlock"
)

const tpmPatience = 10 * time.Second

func boot(ctx context.Context, h host, args []string) error {
	set := flags(h, "boot")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	deadline := set.Duration("deadline", 0, "how long to try, such as 90s; 0s never ends (default: the configuration's)")
	prompt := set.String("prompt", "", "`PROGRAM` to ask for passphrases with, such as /lib/cryptsetup/askpass, beside a boot that then has no deadline")
	if err := parse(set, args); err != nil {
		return err
	}
	c, err := unlock.LoadConfig(*config)
	if err != nil {
		return h.show(err)
	}
	patience := c.Patience()
	if *prompt != "" {
		patience = 0
	}
	if isSet(set, "deadline") {
		patience = *deadline
	}
	h.protect()
	return bootWith(ctx, h, c, unlock.After(h.clock, patience), *prompt)
}

// show shows an error on the consoles, where a boot's failures belong.
func (h host) show(err error) error {
	h.announce(unlock.Line(err))
	return &announced{err}
}

// bootWith gathers what a boot needs and runs it. Whoever waits for its end
// waits for all of it.
func bootWith(ctx context.Context, h host, c *unlock.Config, deadline time.Time, prompt string) error {
	promptAt := unlock.After(h.clock, c.PromptPatience())
	end, err := h.run.BeginBoot()
	if err != nil {
		return h.show(err)
	}
	defer end()
	search := unlock.Search{Clock: h.clock, Deadline: deadline, Announce: h.announce}
	if prompt != "" {
		// A device that is missing then is the distribution's to wait for.
		search.Deadline = promptAt
	}
	volumes, err := search.Volumes(ctx, c.Volumes)
	if err != nil {
		return h.show(err)
	}
	defer func() { _ = volumes.Close() }()
	identity, closeTPM, err := h.identity(ctx, c, tpmPatience)
	if err != nil {
		return h.show(unlock.TPMFailure(err))
	}
	defer closeTPM()
	list, err := servers(c.Servers, bootServer)
	if err != nil {
		return h.show(err)
	}
	pins, err := c.Pins()
	if err != nil {
		return h.show(err)
	}
	screen := &unlock.Screen{Line: h.announce, Question: h.question}
	b := &unlock.Boot{
		TPM: identity, EventLog: c.EventLogPath(), Servers: list, Pins: pins, Volumes: volumes,
		Unseal: h.unseal, Opener: h.opener, Clock: h.clock, Deadline: deadline, Random: rand.Float64,
		Announce: screen.Announce, Keep: h.run, Reboot: h.reboot,
	}
	defer func() {
		for _, d := range b.Delivered() {
			d.Wipe()
		}
	}()
	run := b.Run
	if prompt != "" {
		run = (&unlock.Beside{
			Boot: b.Run, Volumes: askedFor(volumes), Ask: h.askWith(prompt), Open: h.openByPassphrase,
			Clock: h.clock, After: promptAt, Screen: screen,
		}).Run
	}
	err = run(ctx)
	if errors.Is(err, unlock.ErrByPassphrase) {
		return nil
	}
	if err != nil {
		return &announced{err}
	}
	for _, v := range b.Volumes {
		h.announce(fmt.Sprintf("keywright: opened %s as /dev/mapper/%s", v.Device.Name(), v.Config.Name))
	}
	h.rekeyDelivered(ctx, c, identity, b.Delivered())
	return nil
}

func bootServer(host string, client *api.GuestClient) unlock.Server {
	return unlock.Server{Host: host, Service: client}
}

// askedFor returns the volumes that a passphrase is asked for: those that the
// machine boots without are the running system's to open then.
func askedFor(volumes unlock.Volumes) unlock.Volumes {
	if required := volumes.Required(); len(required) > 0 {
		return required
	}
	return volumes
}
