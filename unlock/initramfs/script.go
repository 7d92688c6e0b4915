package initramfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// written begins the second line of each script that we write; its digest tells a
// script of any version from one that somebody changed.
const written = "# keywright-unlock wrote this file; SHA-256 of its other lines: "

// stamp puts the line into a script.
func stamp(content []byte) []byte {
	first, rest, _ := bytes.Cut(content, []byte("\n"))
	sum := sha256.Sum256(content)
	return fmt.Appendf(nil, "%s\n%s%s\n%s", first, written, hex.EncodeToString(sum[:]), rest)
}

// unchanged tells whether a script is as some version of ours wrote it.
func unchanged(text []byte) bool {
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	_, others, _ := bytes.Cut(rest, []byte("\n"))
	return bytes.Equal(text, stamp(fmt.Appendf(nil, "%s\n%s", first, others)))
}

// errChanged means that a script is not as we wrote it.
var errChanged = errors.New("somebody changed it, so it stays as it is: move it away and run this again")

// state of a script: nil where it is as we wrote it, fs.ErrNotExist, errChanged.
func state(path string) error {
	text, err := os.ReadFile(path)
	if err == nil && !unchanged(text) {
		return fmt.Errorf("%s: %w", path, errChanged)
	}
	return err
}

// removeScript removes a script of ours.
func removeScript(path string, _ script) error {
	err := state(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}

// writeScript writes a script where there is none or one of ours.
func writeScript(path string, s script) error {
	if err := state(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	content, err := files.ReadFile(s.source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as the distribution's
		return err
	}
	// A hidden name: initramfs-tools runs what has no dot in its name.
	scratch := filepath.Join(filepath.Dir(path), "."+name+".new")
	err = fill(scratch, stamp(content), s.mode)
	if err == nil {
		err = os.Rename(scratch, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(scratch))
	}
	return nil
}

func fill(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
