package unlock

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"keywright.dev/unlock/luks"
)

// errUnknown means that a boot which was released keys kept no record, or that
// its record is out of reach by now.
var errUnknown = errors.New("this boot was released keys, and there is no record of what it opened")

// closeOpened closes the mappings of this boot and what stands on them, such as
// logical volumes. What is mounted cannot be closed, and is an error.
func (c *Closing) closeOpened(ctx context.Context) error {
	opened, err := c.Opened()
	if err != nil {
		return err
	}
	if opened == nil {
		return errUnknown
	}
	for _, o := range slices.Backward(opened) {
		if err := c.closeStack(ctx, o.Table.Name); err != nil {
			return err
		}
	}
	return c.Keep([]Opened{})
}

// closeStack closes a mapping, from the top down. One that is not there is
// closed.
func (c *Closing) closeStack(ctx context.Context, name string) error {
	table, err := c.Table(name)
	if errors.Is(err, luks.ErrNoMapping) {
		return nil
	}
	if err != nil {
		return err
	}
	above, err := c.Sysfs.above(table.Number)
	if err != nil {
		return err
	}
	for _, holder := range above {
		if err := c.Unmap(ctx, holder); err != nil && !errors.Is(err, luks.ErrNoMapping) {
			return fmt.Errorf("closing what stands on mapping %s: %w", name, err)
		}
	}
	if err := c.Unmap(ctx, name); err != nil && !errors.Is(err, luks.ErrNoMapping) {
		return err
	}
	return nil
}
