// Package initramfs holds what puts keywright-unlock into an initramfs that
// initramfs-tools makes: its hook and its boot scripts.
//
// Invariants:
//   - Without /etc/keywright/unlock.toml every one of them does nothing, so that
//     a package can ship them.
//   - Control leaves the initramfs, to the root or to a shell, behind
//     `keywright-unlock close` alone.
//   - A file that somebody changed is neither replaced nor removed. One that we
//     wrote says so, with a digest of itself, whichever version wrote it.
//   - Where the package has its own files, what we wrote goes: it would stand
//     before them.
package initramfs

import (
	"context"
	"embed"
	"errors"
	"fmt"
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

// Install writes the files, or removes them where a package brought its own. Each
// is whole or as it was; written again they stay the same. It returns the paths of
// those that somebody changed and that therefore stand before the package's.
func (t Tools) Install() (changed []string, err error) {
	change := writeScript
	if t.Packaged() {
		change = removeScript
	} else if _, err := os.Stat(filepath.Join(t.Root, client)); err != nil {
		return nil, fmt.Errorf("installing the initramfs scripts: the initramfs takes the client from its place: install it as %s: %w", client, err)
	}
	err = t.each(func(path, source string) error {
		err := change(path, source)
		if t.Packaged() && errors.Is(err, errChanged) {
			changed = append(changed, path)
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("installing the initramfs scripts: %w", err)
	}
	return changed, nil
}

// Remove removes what [Tools.Install] wrote. What was changed stays, and is an
// error that names it.
func (t Tools) Remove() error {
	if err := t.each(removeScript); err != nil {
		return fmt.Errorf("removing the initramfs scripts: %w", err)
	}
	return nil
}

// each does something to every script, even where it failed with one.
func (t Tools) each(do func(path, source string) error) error {
	var errs []error
	for _, s := range scripts() {
		errs = append(errs, do(filepath.Join(t.Root, configured, s.place, name), s.source))
	}
	return errors.Join(errs...)
}

// Update makes the initramfs of every kernel anew. It takes a while.
func (t Tools) Update(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "update-initramfs", "-u", "-k", "all")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running update-initramfs: %w: %.2000s", err, output)
	}
	return nil
}
