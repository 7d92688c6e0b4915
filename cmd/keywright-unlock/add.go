package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"keywright.dev/hsm/tpm"
	"keywright.dev/unlock"
)

// addsTo returns the configuration that the devices are to be added to; nil
// where they are of an enrolment.
func (f *enrollFlags) addsTo() (*unlock.Config, error) {
	c, err := unlock.LoadConfig(f.config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // the machine is not enrolled yet
	}
	if err != nil {
		return nil, err
	}
	adds, err := unlock.Adds(f.config, c, f.devices)
	if err != nil || !adds {
		return nil, err
	}
	return c, nil
}

// addVolumes adds volumes to those of the configuration.
func addVolumes(ctx context.Context, h host, f *enrollFlags, c *unlock.Config, err error) error {
	if err != nil {
		return err
	}
	if f.name != "" || f.template != "" {
		return fmt.Errorf("%w: --name and --ek-template are for a machine that enrols: this one adds a volume to those of %s", errUsage, f.config)
	}
	e, done, err := h.addition(ctx, f, c)
	if err != nil {
		return err
	}
	defer done()
	e.Passphrase = f.passphrase(h)
	added, err := e.Add(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(h.stdout, "\nThe volume is this machine's, and its next boot opens it with the others.\n")
	printAdded(h.stdout, added)
	return nil
}

// addition is what adds volumes to the machine of a configuration.
func (h host) addition(ctx context.Context, f *enrollFlags, c *unlock.Config) (*unlock.Enrollment, func(), error) {
	if err := f.checkService(c); err != nil {
		return nil, nil, err
	}
	asked := *c
	asked.Servers, asked.ServiceKeys = preferring(f.server, c.Servers), preferring(f.key, c.ServiceKeys)
	pins, err := asked.Pins()
	if err != nil {
		return nil, nil, err
	}
	h.protect()
	list, err := servers(asked.Servers, enrollServer)
	if err != nil {
		return nil, nil, err
	}
	devices, err := f.volumes()
	if err != nil {
		return nil, nil, err
	}
	identity, closeTPM, err := h.identity(ctx, c, 0)
	if errors.Is(err, tpm.ErrOtherMachine) {
		err = fmt.Errorf("%s is of another machine: enroll all volumes of this one: %w", f.config, err)
	}
	if err != nil {
		return nil, nil, err
	}
	return &unlock.Enrollment{
		TPM: identity, EventLog: c.EventLogPath(), Servers: list, Pins: pins, Devices: devices,
		NextBoot: h.nextBoot(c, f.uki), Stage: h.staging(f, identity),
		NoRecoveryKey: f.noRecovery, Initramfs: h.initramfs, Opener: h.opener, Config: *c, ConfigPath: f.config, RunDir: h.run, Out: h.stdout,
	}, closeTPM, nil
}

// staging stages the boots that can follow with the configuration as it is by then.
func (h host) staging(f *enrollFlags, identity *tpm.Identity) func(context.Context) (unlock.Foresight, error) {
	return func(ctx context.Context) (unlock.Foresight, error) {
		c, err := unlock.LoadConfig(f.config)
		if err != nil {
			return unlock.Foresight{}, err
		}
		return h.foresee(ctx, c, identity, f.uki, false)
	}
}

// checkService refuses another service than the machine's: to go there, it
// enrols with all of its volumes.
func (f *enrollFlags) checkService(c *unlock.Config) error {
	if f.server != "" && !slices.Contains(c.Servers, f.server) || f.key != "" && !slices.Contains(c.ServiceKeys, f.key) {
		return fmt.Errorf("%w: this machine is enrolled at %s with %s, and its volumes are added there: leave out --server and --service-key; to move it to another service, enroll all of its volumes there together",
			errUsage, strings.Join(c.Servers, ", "), strings.Join(c.ServiceKeys, ", "))
	}
	return nil
}

// printAdded says what is left to do by hand.
func printAdded(w io.Writer, e unlock.Enrolled) {
	fmt.Fprintln(w)
	for _, v := range e.Volumes {
		printEnrolledVolume(w, v)
	}
	for _, b := range e.Boots {
		printBoot(w, b)
	}
	fmt.Fprint(w, `
The initramfs of the next boot names the volume, so that boot measures otherwise
than this one: keywright-unlock preflight tells whether it gets its keys, and what
an operator has to approve before the reboot where it does not.

`)
	for _, v := range e.Volumes {
		fmt.Fprintf(w, "  /etc/crypttab  %s UUID=%s none luks,nofail\n", v.Name, v.UUID)
	}
	for _, v := range e.Volumes {
		fmt.Fprintf(w, "  /etc/fstab     /dev/mapper/%s /srv/%s ext4 defaults,nofail 0 2\n", v.Name, v.Name)
	}
	fmt.Fprint(w, "\nare lines to write by hand, with your own directory and file system.\n")
}
