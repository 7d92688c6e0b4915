package unlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// enrollingFile stands beside the configuration from before the first
	// keyslot is added until the service has the commit. It lists the volumes:
	// docs/formats/luks-token.md.
	enrollingFile = "enrolling"
	enrollingHead = "keywright-enrolling 1"

	// addingFile stands there while volumes are added to an active machine.
	addingFile = "adding"
	addingHead = "keywright-adding 1"
)

func (e *Enrollment) enrollingPath() string {
	return filepath.Join(filepath.Dir(e.ConfigPath), enrollingFile)
}

func (e *Enrollment) uuids() []string {
	var uuids []string
	for _, t := range e.targets {
		uuids = append(uuids, t.uuid())
	}
	return uuids
}

// checkSet refuses other volumes than those of an enrolment that was interrupted.
// The service would give each a new secret, and nobody could open the keyslots
// that are there.
func (e *Enrollment) checkSet() error {
	begun, err := readList(e.enrollingPath(), enrollingHead)
	if err != nil {
		return fmt.Errorf("reading which volumes an interrupted enrolment has: %w", err)
	}
	given := e.uuids()
	if len(begun) == 0 || slices.Equal(begun, given) {
		return nil
	}
	return fail(CodeDevice, fmt.Errorf("an enrolment of the volumes with the LUKS UUIDs %s was interrupted, these are %s: finish it first, with all of them and no other, each named with --device; if one is gone for good, remove %s",
		strings.Join(begun, ", "), strings.Join(given, ", "), e.enrollingPath()))
}

// recordSet records the volumes before any of them gets a keyslot.
func (e *Enrollment) recordSet(context.Context) error {
	return writeList(e.enrollingPath(), enrollingHead, e.uuids())
}

// forgetSet says that no keyslot hangs on this enrolment alone any more.
func (e *Enrollment) forgetSet() error {
	return errors.Join(removeList(e.enrollingPath()), removeList(e.addingPath()))
}

func (e *Enrollment) addingPath() string {
	return filepath.Join(filepath.Dir(e.ConfigPath), addingFile)
}

// recordAdding records the volumes beside those of other additions. Each is
// taken up again by itself.
func (e *Enrollment) recordAdding(context.Context) error {
	begun, err := readList(e.addingPath(), addingHead)
	if err != nil {
		return err
	}
	begun = append(begun, e.uuids()...)
	slices.Sort(begun)
	return writeList(e.addingPath(), addingHead, slices.Compact(begun))
}

// forgetAdding says that nothing is left to do for these volumes.
func (e *Enrollment) forgetAdding() error { return e.forget(e.uuids()) }

func (e *Enrollment) forget(over []string) error {
	begun, err := readList(e.addingPath(), addingHead)
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(begun, func(uuid string) bool { return slices.Contains(over, uuid) })
	if len(left) == 0 {
		return removeList(e.addingPath())
	}
	return writeList(e.addingPath(), addingHead, left)
}

// readList reads LUKS UUIDs under a head line; none where there is no file.
func readList(path, head string) ([]string, error) {
	text, err := readBounded(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	first, list, _ := strings.Cut(string(text), "\n")
	if first != head {
		return nil, fmt.Errorf("%s is not of version 1", path)
	}
	return strings.Fields(list), nil
}

func writeList(path, head string, uuids []string) error {
	return writeDurably(path, []byte(strings.Join(append([]string{head}, uuids...), "\n")+"\n"), 0o644)
}

func removeList(path string) error {
	err := removeDurably(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
