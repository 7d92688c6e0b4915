// Package initramfs holds what puts keywright-unlock into an initramfs that
// initramfs-tools makes: its hook and its boot scripts; and what has the running
// system announce such an initramfs before it boots: hooks and systemd units; and
// the unit of the agent, which waits for the service's orders there.
//
// Invariants:
//   - Without /etc/keywright/unlock.toml every one of them does nothing, so that
//     a package can ship them.
//   - Control leaves the initramfs, to the root, a shell or the image of a
//     suspended system, behind `keywright-unlock close` alone.
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
	units      = "/etc/systemd/system"
	unit       = "keywright-unlock-stage"
	agent      = "keywright-unlock-agent"
	repin      = "keywright-unlock-repin"

	program fs.FileMode = 0o755
	text    fs.FileMode = 0o644
)

// script is a file, and where it stands where no package brought it.
type script struct {
	source, path string
	mode         fs.FileMode
}

// scripts returns what runs in the making of an initramfs and in it.
func scripts() []script {
	return []script{
		{"files/hook", configured + "/hooks/" + name, program},
		{"files/scripts/local-top", configured + "/scripts/local-top/" + name, program},
		{"files/scripts/closing", configured + "/scripts/init-bottom/" + name, program},
		{"files/scripts/closing", configured + "/scripts/panic/" + name, program},
	}
}

// running returns what the running system has: what announces the next boots, and
// the agent. The package's hooks have other names, since theirs is the same folder.
func running() []script {
	return []script{
		// Behind zz-update-grub.
		{"files/stage/hook", "/etc/kernel/postinst.d/zzz-" + name, program},
		{"files/stage/hook", "/etc/kernel/postrm.d/zzz-" + name, program},
		{"files/stage/hook", "/etc/initramfs/post-update.d/" + name, program},
		{"files/stage/" + unit + ".service", units + "/" + unit + ".service", text},
		{"files/stage/" + unit + ".timer", units + "/" + unit + ".timer", text},
		{"files/stage/" + unit + ".path", units + "/" + unit + ".path", text},
		{"files/agent/" + agent + ".service", units + "/" + agent + ".service", text},
		{"files/repin/" + repin + ".service", units + "/" + repin + ".service", text},
		{"files/repin/" + repin + ".timer", units + "/" + repin + ".timer", text},
		{"files/repin/" + repin + ".path", units + "/" + repin + ".path", text},
	}
}

// wanted returns the links that start units, and what they lead to.
func wanted() map[string]string {
	return map[string]string{
		units + "/timers.target.wants/" + unit + ".timer": "../" + unit + ".timer",
		units + "/paths.target.wants/" + unit + ".path":   "../" + unit + ".path",

		units + "/timers.target.wants/" + repin + ".timer": "../" + repin + ".timer",
		units + "/paths.target.wants/" + repin + ".path":   "../" + repin + ".path",

		units + "/multi-user.target.wants/" + agent + ".service": "../" + agent + ".service",
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
	err = t.each(func(path string, s script) error {
		err := change(path, s)
		if t.Packaged() && errors.Is(err, errChanged) {
			changed = append(changed, path)
			return nil
		}
		return err
	})
	if err == nil {
		err = t.want(!t.Packaged())
	}
	if err != nil {
		return nil, fmt.Errorf("installing the initramfs scripts: %w", err)
	}
	return changed, nil
}

// Ready tells why the initramfs that this system makes next would not run the
// client; nil where it does, or where the system makes it with other tools.
func (t Tools) Ready() error {
	if !t.Present() || t.Packaged() {
		return nil
	}
	for _, s := range scripts() {
		if _, err := os.Stat(filepath.Join(t.Root, s.path)); err != nil {
			return fmt.Errorf("%s is missing: install the package, or run keywright-unlock enroll", s.path)
		}
	}
	return nil
}

// Remove removes what [Tools.Install] wrote. What was changed stays, and is an
// error that names it.
func (t Tools) Remove() error {
	if err := errors.Join(t.want(false), t.each(removeScript)); err != nil {
		return fmt.Errorf("removing the initramfs scripts: %w", err)
	}
	return nil
}

// each does something to every script, even where it failed with one.
func (t Tools) each(do func(path string, s script) error) error {
	var errs []error
	for _, s := range append(scripts(), running()...) {
		errs = append(errs, do(filepath.Join(t.Root, s.path), s))
	}
	return errors.Join(errs...)
}

// want makes the links that start the units with the system, or removes them.
func (t Tools) want(start bool) error {
	var errs []error
	for link, target := range wanted() {
		path := filepath.Join(t.Root, link)
		if old, err := os.Readlink(path); err == nil && old == target {
			if !start {
				errs = append(errs, os.Remove(path))
			}
			continue
		}
		if start {
			errs = append(errs, os.MkdirAll(filepath.Dir(path), program), os.Symlink(target, path))
		}
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
