package luks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/anatol/devmapper.go"
	"golang.org/x/sys/unix"
)

const (
	mapperDir = "/dev/mapper"
	// udevControl exists while udev runs.
	udevControl = "/run/udev/control"
	// udev is given this long to make or remove a node, and to let go of a
	// device that it is probing.
	udevPatience = 10 * time.Second
	pollInterval = 10 * time.Millisecond
)

// Close removes the mapping and its node. A mapping that does not exist is
// [ErrNoMapping]; one that stays in use is [ErrBusy]: udev probes a new device
// for a moment, so it is tried again for some seconds.
func Close(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, udevPatience)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		err := devmapper.Remove(name)
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		return err == nil, err
	})
	switch {
	case errors.Is(err, errTimeout):
		return fmt.Errorf("closing mapping %s: %w", name, ErrBusy)
	case err != nil:
		return fmt.Errorf("closing mapping %s: %w", name, missing(err))
	}
	return removeNode(name)
}

func removeNode(name string) error {
	if udevRuns() {
		return nil
	}
	if err := os.Remove(filepath.Join(mapperDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the node of mapping %s: %w", name, err)
	}
	return nil
}

// awaitNode returns the path of the mapping's node: the one that udev makes, or
// our own where udev does not run or does not come round to it.
func awaitNode(ctx context.Context, t Table) (string, error) {
	path := filepath.Join(mapperDir, t.Name)
	if udevRuns() {
		ctx, cancel := context.WithTimeout(ctx, udevPatience)
		defer cancel()
		err := poll(ctx, func() (bool, error) { return nodeIs(path, t.Number), nil })
		if !errors.Is(err, errTimeout) {
			return path, err
		}
	}
	if nodeIs(path, t.Number) {
		return path, nil
	}
	return path, makeNode(path, t.Number)
}

// makeNode replaces what a mapping of the same name may have left at path.
func makeNode(path, number string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a stale node: %w", err)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(number, "%d:%d", &major, &minor); err != nil {
		return fmt.Errorf("making node %s: %w", path, err)
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		return fmt.Errorf("making node %s: %w", path, err)
	}
	return nil
}

// nodeIs reports whether path leads to the block device with a number.
func nodeIs(path, want string) bool {
	var stat unix.Stat_t
	return unix.Stat(path, &stat) == nil && isBlock(stat) && number(stat.Rdev) == want
}

func udevRuns() bool {
	_, err := os.Stat(udevControl)
	return err == nil
}

var errTimeout = errors.New("waited in vain")

// poll runs done until it reports true or an error; errTimeout when ctx ends
// before that.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errTimeout
		case <-tick.C:
		}
	}
}
