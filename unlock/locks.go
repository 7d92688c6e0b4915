package unlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bootLock is held by a boot from before it looks at PCR 15 until the last
	// mapping that it opens is recorded. It names its holder.
	bootLock = "boot.lock"
	lockPoll = 100 * time.Millisecond
	// bootPatience is what a boot that has its release may take to open its
	// volumes, udev's patience with each included.
	bootPatience = 2 * time.Minute
	maxPID       = 32 // bytes
)

// errHeld means that another process holds a lock.
var errHeld = errors.New("another process holds the lock")

// BeginBoot keeps a second boot from running, and [RunDir.EndBoot] from going
// on, until end is called or the process is gone.
func (d RunDir) BeginBoot() (end func(), err error) {
	f, err := d.lock(bootLock)
	if errors.Is(err, errHeld) {
		return nil, errors.New("another keywright-unlock boot is running")
	}
	if err != nil {
		return nil, fmt.Errorf("locking the boot: %w", err)
	}
	if err := nameHolder(f); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the boot: %w", err), f.Close())
	}
	return func() { _ = errors.Join(f.Truncate(0), f.Close()) }, nil
}

func nameHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

// EndBoot tells a boot that runs to end and waits until it has. One that opens
// its volumes already does so first. It is an error if that takes too long.
func (d RunDir) EndBoot(ctx context.Context, clock Clock) error {
	deadline := clock.Now().Add(bootPatience)
	for told := false; ; told = true {
		running, err := d.bootRuns()
		if err != nil || !running {
			return err
		}
		if clock.Now().After(deadline) {
			return fmt.Errorf("keywright-unlock boot did not end within %v", bootPatience)
		}
		if !told {
			// Where it cannot be told it finds PCR 15 extended at its next try.
			_ = d.stopBoot()
		}
		if err := clock.Sleep(ctx, lockPoll); err != nil {
			return err
		}
	}
}

// bootRuns tells whether a process holds the boot's lock. Where there is no
// lock no boot began, and one that begins now finds PCR 15 extended.
func (d RunDir) bootRuns() (bool, error) {
	f, err := d.tryLock(bootLock, os.O_RDONLY)
	switch {
	case errors.Is(err, errHeld):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("looking for a boot that runs: %w", err)
	default:
		return false, f.Close()
	}
}

// stopBoot sends SIGTERM to the holder of the boot's lock. Only a process that
// was pinned while the lock was held is the one that the lock names.
func (d RunDir) stopBoot() error {
	text, err := readBounded(filepath.Join(string(d), bootLock), maxPID)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return fmt.Errorf("reading who holds the boot's lock: %w", err)
	}
	pinned, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(pinned) }()
	if running, err := d.bootRuns(); err != nil || !running {
		return err
	}
	return unix.PidfdSendSignal(pinned, unix.SIGTERM, nil, 0)
}

// lock takes a lock of the directory, which it makes. The kernel lets go of it
// when the process ends, however it does.
func (d RunDir) lock(name string) (*os.File, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	return d.tryLock(name, os.O_CREATE|os.O_RDWR)
}

func (d RunDir) tryLock(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errHeld
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
