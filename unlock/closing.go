package unlock

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// Closing is the end of a boot's exchange: what has to be done before control
// leaves the measured initramfs. All fields are required but Root, Shell,
// Resume and Misuse.
type Closing struct {
	// TPM gives PCR 15.
	TPM func() (ReleasePCR, error)
	// Root is the root file system to hand over to: its device, or the
	// directory where it is mounted. Empty where control goes elsewhere.
	Root string
	// Shell says that control goes to a shell, in front of which anybody may sit:
	// what this boot opened is closed.
	Shell bool
	// Resume is the device of an image of a suspended system, which is to take
	// over. One that is not on what this boot opened is an error, and must not.
	Resume string
	// Misuse is why it is not known what to check: PCR 15 is extended all the
	// same, but nothing is handed over to.
	Misuse error
	// EndBoot ends a boot that still runs and waits for it; [RunDir.EndBoot]
	// does.
	EndBoot func(ctx context.Context, clock Clock) error
	// Opened returns what this boot opened; nil where it kept nothing.
	Opened func() ([]Opened, error)
	// Keep keeps what is still open.
	Keep func([]Opened) error
	// Device returns the number of Root's device; [DeviceNumber] does.
	Device func(path string) (string, error)
	Sysfs  Sysfs
	// Table reads the table of a mapping; luks.ReadTable does.
	Table func(name string) (luks.Table, error)
	// Unmap closes a mapping; luks.Close does.
	Unmap func(ctx context.Context, name string) error
	Clock Clock
	// Announce shows one line on the consoles.
	Announce func(line string)
	// Reboot resets the machine, and does not return if it can.
	Reboot func() error
}

// readingTime is how long the reason of a reset stays on the screen.
const readingTime = 10 * time.Second

// Run extends PCR 15 unless it was extended before, waits for a boot that still
// opens volumes, and checks the root or closes what is open. It may be called
// again. If any of it fails
// it resets the machine: what runs next could ask for the keys, or see data
// disks from a root that is not ours.
func (c *Closing) Run(ctx context.Context) error {
	// Without ctx: being told to stop is no way around any of it.
	ctx = context.WithoutCancel(ctx)
	released, err := c.spend()
	if err == nil {
		err = wrap(CodeGuest, c.EndBoot(ctx, c.Clock))
	}
	if err == nil {
		err = c.Misuse
	}
	switch {
	case err != nil:
	case c.Root != "":
		err = c.checkRoot()
	case c.Shell && released:
		err = wrap(CodeOpen, c.closeOpened(ctx))
	}
	if err != nil {
		return c.Reset(ctx, err)
	}
	if c.Resume != "" {
		return c.checkResume()
	}
	return nil
}

// Reset shows why and resets the machine. It returns what it was given where the
// machine goes on.
func (c *Closing) Reset(ctx context.Context, why error) error {
	failure := asFailure(why)
	c.Announce(failure.Line("", -1) + "; resetting the machine")
	_ = c.Clock.Sleep(ctx, readingTime)
	failure.err = errors.Join(failure.err, c.Reboot())
	return failure
}

// spend makes sure that PCR 15 is not zero, and tells whether this boot may have
// been released keys.
func (c *Closing) spend() (released bool, err error) {
	pcr, err := c.TPM()
	if err != nil {
		return false, fail(CodeTPM, err)
	}
	value, err := pcr.PCR15()
	if err != nil {
		return false, fail(CodeTPM, err)
	}
	if value != [32]byte{} {
		return value != exchange.Extend([32]byte{}, exchange.NoReleaseEvent()), nil
	}
	if err := pcr.ExtendPCR15(exchange.NoReleaseEvent()); err != nil {
		return false, fail(CodeTPM, err)
	}
	return false, nil
}

// checkRoot demands that the root is on the mapping that this boot opened as
// root, unchanged, directly or through what is stacked on mappings of this boot
// alone. A boot that opened nothing has nothing to protect: its root
// was opened by passphrase.
func (c *Closing) checkRoot() error {
	opened, err := c.stillOpen()
	if err != nil || len(opened) == 0 {
		return wrap(CodeRoot, err)
	}
	number, err := c.Device(c.Root)
	if err != nil {
		return fail(CodeRoot, err)
	}
	reached, err := rootOn(c.Sysfs, opened, number)
	if err != nil {
		return fail(CodeRoot, fmt.Errorf("%s is on device %s: %w", c.Root, number, err))
	}
	for _, o := range reached {
		if err := c.unchanged(o.Table); err != nil {
			return fail(CodeRoot, err)
		}
	}
	return nil
}

// checkResume demands that the image of a suspended system is on mappings of this
// boot: one of somebody else's would find their keys in memory. It is no reason
// to reset: the machine boots without the image.
func (c *Closing) checkResume() error {
	opened, err := c.stillOpen()
	if err == nil && len(opened) > 0 {
		err = c.standsOn(c.Resume, opened)
	}
	if err == nil {
		return nil
	}
	failure := fail(CodeRoot, fmt.Errorf("resuming from %s: %w", c.Resume, err))
	c.Announce(failure.Line("", -1) + "; the machine boots without")
	return failure
}

// standsOn demands that a device is on some of the mappings alone.
func (c *Closing) standsOn(device string, opened []Opened) error {
	number, err := c.Device(device)
	if err != nil {
		return err
	}
	reached, err := c.Sysfs.reach(number, opened)
	for _, o := range reached {
		if err == nil {
			err = c.unchanged(o.Table)
		}
	}
	return err
}

// unchanged demands that a mapping is as it was when it was opened.
func (c *Closing) unchanged(want luks.Table) error {
	table, err := c.Table(want.Name)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(normal(table), normal(want)) {
		return fmt.Errorf("mapping %s is not what this boot opened: its table changed", table.Name)
	}
	return nil
}

// stillOpen returns what this boot opened, without mappings that it was killed
// before it made.
func (c *Closing) stillOpen() ([]Opened, error) {
	recorded, err := c.Opened()
	if err != nil {
		return nil, err
	}
	var opened []Opened
	for _, o := range recorded {
		if o.Table.Number == "" {
			_, err := c.Table(o.Table.Name)
			if errors.Is(err, luks.ErrNoMapping) {
				continue
			}
		}
		opened = append(opened, o)
	}
	return opened, nil
}

func wrap(code api.Code, err error) error {
	if err == nil {
		return nil
	}
	return fail(code, err)
}

// normal makes an absent list of flags equal to an empty one.
func normal(t luks.Table) luks.Table {
	if len(t.Flags) == 0 {
		t.Flags = nil
	}
	return t
}

// rootOn returns the mappings that the root is on. Where the configuration marks
// a root, the others alone do not pass for it.
func rootOn(sys Sysfs, opened []Opened, number string) ([]Opened, error) {
	reached, err := sys.reach(number, opened)
	if err != nil {
		return nil, err
	}
	isRoot := func(o Opened) bool { return o.Root }
	if slices.ContainsFunc(opened, isRoot) && !slices.ContainsFunc(reached, isRoot) {
		return nil, errors.New("it is not on the mapping that this boot opened as root")
	}
	return reached, nil
}
