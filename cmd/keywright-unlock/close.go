package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"

	"keywright.dev/hsm/tpm"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// closing is one run of the command. What it has to say comes last: nobody may
// read it, and that must hold up nothing.
type closing struct {
	unlock.Closing
	host     host
	config   *unlock.Config
	release  func()
	warnings bytes.Buffer
}

func closeBoot(ctx context.Context, h host, args []string) (err error) {
	c := &closing{host: h, config: &unlock.Config{}, release: func() {}, Closing: unlock.Closing{
		EndBoot: h.run.EndBoot, Opened: h.run.ReadOpened, Keep: h.run.Opened, Table: luks.ReadTable, Unmap: luks.Close,
		Device: unlock.DeviceNumber, Sysfs: unlock.DefaultSysfs, Clock: h.clock, Announce: h.announce, Reboot: h.reboot,
	}}
	defer func() {
		c.release()
		_, _ = h.stderr.Write(c.warnings.Bytes())
	}()
	defer c.resetOnPanic(&err)
	return c.run(ctx, args)
}

// resetOnPanic resets a machine that was neither closed nor kept from going on.
func (c *closing) resetOnPanic(err *error) {
	if cause := recover(); cause != nil {
		*err = &announced{c.Reset(context.Background(), fmt.Errorf("closing the boot: a fault of this program: %v", cause))}
	}
}

func (c *closing) run(ctx context.Context, args []string) error {
	path, err := c.parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	c.Misuse = err
	unused := c.load(path)
	patience := tpmPatience
	if unused {
		patience = 0
	}
	device, missing := c.host.awaitTPM(ctx, c.config.TPMPath(), patience)
	if unused && errors.Is(missing, fs.ErrNotExist) {
		return c.Misuse // nobody can ask for keys here, nor was this initramfs made for it
	}
	c.TPM = func() (unlock.ReleasePCR, error) {
		if missing != nil {
			return nil, missing
		}
		return c.releasePCR(device)
	}
	if err := c.Run(ctx); err != nil {
		return &announced{err}
	}
	return nil
}

// parse returns the path of the configuration, also where the arguments are
// wrong.
func (c *closing) parse(args []string) (config string, err error) {
	set := flags(c.host, "close")
	set.SetOutput(&c.warnings)
	path := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	set.StringVar(&c.Root, "root", "", "`DEVICE` of the root file system, or the directory where it is mounted, to be checked")
	set.StringVar(&c.Resume, "resume", "", "`DEVICE` to resume a suspended system from, to be checked")
	set.BoolVar(&c.Shell, "shell", false, "control goes to a shell: close what this boot opened with released keys")
	err = parse(set, args)
	switch {
	case err != nil:
	case isSet(set, "root") && c.Root == "":
		err = fmt.Errorf("%w: --root is empty", errUsage)
	case isSet(set, "resume") && c.Resume == "":
		err = fmt.Errorf("%w: --resume is empty", errUsage)
	case set.NFlag() > 1 && !(set.NFlag() == 2 && isSet(set, "config")):
		err = fmt.Errorf("%w: control goes to one place: give one of --root, --resume and --shell", errUsage)
	}
	return *path, err
}

// load reads the configuration, and tells whether there is none. A broken one is
// no reason to leave PCR 15 as it is.
func (c *closing) load(path string) (unused bool) {
	config, err := unlock.LoadConfig(path)
	switch {
	case err == nil:
		c.config = config
	case errors.Is(err, fs.ErrNotExist):
		return true
	default:
		c.warn(err)
	}
	return false
}

func (c *closing) warn(err error) {
	fmt.Fprintf(&c.warnings, "keywright-unlock: warning: %v\n", err)
}

// releasePCR gives PCR 15 of the configured machine, through a session that
// nobody on the bus can answer for. Where no machine is configured it gives that
// of a TPM without keys too: extended is what counts.
func (c *closing) releasePCR(device *tpm.Device) (unlock.ReleasePCR, error) {
	identity, err := identityOf(device, c.config)
	switch {
	case err == nil:
		c.release = func() { _ = errors.Join(identity.Close(), device.Close()) }
		return identity, nil
	case c.config.Machine != "":
		return nil, errors.Join(err, device.Close())
	default:
		c.warn(err)
		c.release = func() { _ = device.Close() }
		return device, nil
	}
}
