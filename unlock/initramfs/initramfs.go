// Package initramfs holds what puts keywright-unlock into an initramfs that
// initramfs-tools makes: its hook and its boot scripts.
//
// Invariants:
//   - Without /etc/keywright/unlock.toml every one of them does nothing, so that
//     a package can ship them.
//   - Control leaves the initramfs, to the root, a shell or the image of a
//     suspended system, behind `keywright-unlock close` alone.
//   - A file that somebody changed is neither replaced nor removed.
//
// It refuses to install where the package has: then there would be two.
package initramfs

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed files
var files embed.FS

// Where initramfs-tools looks: in what administrators have, then in packages'.
const (
	configured = "/etc/initramfs-tools"
	packaged   = "/usr/share/initramfs-tools"
	name       = "keywright"
	client     = "/usr/sbin/keywright-unlock"
)

// script is a file, and where it stands below one of the two places.
type script struct{ source, place string }

func scripts() []script {
	return []script{
		{"files/hook", "hooks"},
		{"files/scripts/local-top", "scripts/local-top"},
		{"files/scripts/closing", "scripts/init-bottom"},
		{"files/scripts/closing", "scripts/panic"},
	}
}

// Tools is the initramfs-tools of a system; the zero value is the running one's.
type Tools struct {
	// Root is where the system's files are; empty: /.
	Root string
}

// Present tells whether the system makes its initramfs with initramfs-tools.
func (t Tools) Present() bool {
	_, err := os.Stat(filepath.Join(t.Root, packaged, "hook-functions"))
	return err == nil
}

// Packaged tells whether a package brought the files.
func (t Tools) Packaged() bool {
	_, err := os.Stat(filepath.Join(t.Root, packaged, "hooks", name))
	return err == nil
}

// Install writes the files, unless a package brought them. Each is whole or as it
// was; written again they stay the same.
func (t Tools) Install() error {
	if t.Packaged() {
		return nil
	}
	if _, err := os.Stat(filepath.Join(t.Root, client)); err != nil {
		return fmt.Errorf("installing the initramfs scripts: the initramfs takes the client from its place: install it as %s: %w", client, err)
	}
	for _, s := range scripts() {
		content, err := files.ReadFile(s.source)
		if err != nil {
			return fmt.Errorf("installing the initramfs scripts: %w", err)
		}
		if err := write(filepath.Join(t.Root, configured, s.place, name), content); err != nil {
			return fmt.Errorf("installing the initramfs scripts: %w", err)
		}
	}
	return nil
}

// errChanged means that a file is not as it was installed.
var errChanged = errors.New("it was changed, and stays as it is")

// write writes a script where there is none.
func write(path string, content []byte) error {
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, content):
		return nil
	case err == nil:
		return fmt.Errorf("%s: %w", path, errChanged)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as the distribution's
		return err
	}
	// A hidden name: initramfs-tools runs what has no dot in its name.
	scratch := filepath.Join(filepath.Dir(path), "."+name+".new")
	err = fill(scratch, content)
	if err == nil {
		err = os.Rename(scratch, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(scratch))
	}
	return nil
}

func fill(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755) //nolint:gosec // a script without secrets
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// Remove removes what [Tools.Install] wrote. What was changed stays, and is an
// error that names it.
func (t Tools) Remove() error {
	var errs []error
	for _, s := range scripts() {
		content, err := files.ReadFile(s.source)
		if err != nil {
			return fmt.Errorf("removing the initramfs scripts: %w", err)
		}
		path := filepath.Join(t.Root, configured, s.place, name)
		old, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil && !bytes.Equal(old, content):
			err = fmt.Errorf("%s: %w", path, errChanged)
		case err == nil:
			err = os.Remove(path)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the initramfs scripts: %w", err)
	}
	return nil
}

// Update makes the initramfs of every kernel anew. It takes a while.
func (t Tools) Update(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "update-initramfs", "-u", "-k", "all")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running update-initramfs: %w: %.2000s", err, output)
	}
	return nil
}
