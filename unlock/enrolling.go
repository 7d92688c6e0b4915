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
	text, err := readBounded(e.enrollingPath(), maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading which volumes an interrupted enrolment has: %w", err)
	}
	head, list, _ := strings.Cut(string(text), "\n")
	if head != enrollingHead {
		return fmt.Errorf("reading which volumes an interrupted enrolment has: %s is not of version 1", e.enrollingPath())
	}
	begun, given := strings.Fields(list), e.uuids()
	if slices.Equal(begun, given) {
		return nil
	}
	return fail(CodeDevice, fmt.Errorf("an enrolment of the volumes with the LUKS UUIDs %s was interrupted, these are %s: finish it first, with all of them and no other, each named with --device; if one is gone for good, remove %s",
		strings.Join(begun, ", "), strings.Join(given, ", "), e.enrollingPath()))
}

// recordSet records the volumes before any of them gets a keyslot.
func (e *Enrollment) recordSet(context.Context) error {
	lines := append([]string{enrollingHead}, e.uuids()...)
	return writeDurably(e.enrollingPath(), []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// forgetSet says that no keyslot hangs on this enrolment alone any more.
func (e *Enrollment) forgetSet() error {
	err := removeDurably(e.enrollingPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
