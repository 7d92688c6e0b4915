package unlock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"golang.org/x/sys/unix"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// Closing is the end of a boot's exchange: what has to be done before control
// leaves the measured initramfs. All fields are required but Root and
// Misuse.
type Closing struct {
	// TPM gives PCR 15.
	TPM func() (ReleasePCR, error)
	// Root is the root file system to hand over to: its device, or the
	// directory where it is mounted. Empty where control goes to a shell.
	Root string
	// Misuse is why it is not known what to check: PCR 15 is extended all the
	// same, but nothing is handed over to.
	Misuse error
	// EndBoot ends a boot that still runs and waits for it; [RunDir.EndBoot]
	// does.
	EndBoot func(ctx context.Context, clock Clock) error
	// Opened returns what this boot opened.
	Opened func() ([]Opened, error)
	// Table reads the table of a mapping; luks.ReadTable does.
	Table func(name string) (luks.Table, error)
	Clock Clock
	// Announce shows one line on the consoles.
	Announce func(line string)
	// Reboot resets the machine, and does not return if it can.
	Reboot func() error
}

// readingTime is how long the reason of a reset stays on the screen.
const readingTime = 10 * time.Second

// Run extends PCR 15 unless it was extended before, waits for a boot that still
// opens volumes, and checks the root. It may be called again. If any of it fails
// it resets the machine: what runs next could ask for the keys, or see data
// disks from a root that is not ours.
func (c *Closing) Run(ctx context.Context) error {
	// Without ctx: being told to stop is no way around any of it.
	ctx = context.WithoutCancel(ctx)
	err := c.spend()
	if err == nil {
		err = wrap(CodeGuest, c.EndBoot(ctx, c.Clock))
	}
	if err == nil {
		err = c.Misuse
	}
	if err == nil && c.Root != "" {
		err = c.checkRoot()
	}
	if err == nil {
		return nil
	}
	return c.Reset(ctx, err)
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

// spend makes sure that PCR 15 is not zero.
func (c *Closing) spend() error {
	pcr, err := c.TPM()
	if err != nil {
		return fail(CodeTPM, err)
	}
	value, err := pcr.PCR15()
	if err != nil {
		return fail(CodeTPM, err)
	}
	if value != [32]byte{} {
		return nil
	}
	if err := pcr.ExtendPCR15(exchange.NoReleaseEvent()); err != nil {
		return fail(CodeTPM, err)
	}
	return nil
}

// checkRoot demands that the root is on the mapping that this boot opened as
// root, unchanged. A boot that opened nothing has nothing to protect: its root
// was opened by passphrase.
func (c *Closing) checkRoot() error {
	opened, err := c.stillOpen()
	if err != nil || len(opened) == 0 {
		return wrap(CodeRoot, err)
	}
	number, err := deviceNumber(c.Root)
	if err != nil {
		return fail(CodeRoot, err)
	}
	ours, err := rootOf(opened, number)
	if err != nil {
		return fail(CodeRoot, fmt.Errorf("%s is on device %s: %w", c.Root, number, err))
	}
	table, err := c.Table(ours.Table.Name)
	if err != nil {
		return fail(CodeRoot, err)
	}
	if !reflect.DeepEqual(normal(table), normal(ours.Table)) {
		return fail(CodeRoot, fmt.Errorf("mapping %s is not what this boot opened: its table changed", table.Name))
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

var errNotOurs = errors.New("that is not a mapping that this boot opened as root")

// rootOf returns the mapping with a device number. Where the configuration
// marks a root, no other volume passes for it.
func rootOf(opened []Opened, number string) (Opened, error) {
	marked := false
	for _, o := range opened {
		marked = marked || o.Root
	}
	for _, o := range opened {
		if o.Table.Number == number && (o.Root || !marked) {
			return o, nil
		}
	}
	return Opened{}, errNotOurs
}

// deviceNumber returns major:minor of a block device, or of the device that a
// directory's file system is on.
func deviceNumber(path string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return "", fmt.Errorf("looking at the root %s: %w", path, &os.PathError{Op: "stat", Path: path, Err: err})
	}
	number := stat.Dev
	if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
		number = stat.Rdev
	}
	return fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number)), nil
}
