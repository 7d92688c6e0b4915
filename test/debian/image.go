package debian

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"keywright.dev/kms/secret"
	"keywright.dev/test/process"
	"keywright.dev/test/vm"
)

//go:embed install
var installScript []byte

const (
	diskSize    = 3 << 30
	mke2fsTypes = "/etc/mke2fs.conf" // what ext4 is
	passphrase  = "typed by the installer"
)

// Layout is what is on the encrypted partition of a disk.
type Layout string

// The layouts.
const (
	Plain Layout = "plain" // the root file system
	LVM   Layout = "lvm"   // the volume group debian-vg of root and swap_1
)

// Mapping returns the name of the opened partition, which crypttab gives it.
func (l Layout) Mapping() string {
	if l == LVM {
		return "vda3_crypt"
	}
	return "root"
}

// Upgrade returns the path of the package with the kernel that the system is
// upgraded to.
func Upgrade() (string, error) {
	archive, err := Archive()
	return strings.TrimSuffix(archive, ".tar") + ".deb", err
}

// Passphrase opens the root of every image.
func Passphrase() secret.Bytes { return secret.Copy([]byte(passphrase)) }

// WriteDisk makes a disk image with a freshly installed system at path, of the
// layout [Plain].
func WriteDisk(ctx context.Context, path string) error { return Plain.WriteDisk(ctx, path) }

// WriteDisk makes a disk image with a freshly installed system at path. The
// first one takes minutes; it is kept in the cache.
func (l Layout) WriteDisk(ctx context.Context, path string) error {
	image, err := l.cached(ctx)
	if err != nil {
		return fmt.Errorf("installing Debian: %w", err)
	}
	// Holes stay holes.
	return process.Run(ctx, exec.CommandContext(ctx, "cp", "--sparse=always", image, path))
}

// cached returns the path of the installed image, made where it is not there.
func (l Layout) cached(ctx context.Context) (string, error) {
	archive, err := Archive()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(l.script()))
	image := archive[:len(archive)-len(".tar")] + "-" + hex.EncodeToString(sum[:6]) + ".raw"
	if _, err := os.Stat(image); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return image, err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(image), ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	fresh := filepath.Join(scratch, "disk")
	if err := l.install(ctx, scratch, fresh, archive); err != nil {
		return "", err
	}
	return image, os.Rename(fresh, image)
}

// Archive returns the path of the tree of packages that test/setup keeps.
func Archive() (string, error) {
	cache, err := vm.Cache()
	if err != nil {
		return "", err
	}
	archive, err := filepath.EvalSymlinks(filepath.Join(cache, "debian", "current.tar"))
	if err != nil {
		return "", fmt.Errorf("finding Debian's packages: %w: run test/setup vm", err)
	}
	return archive, nil
}

// script is what the installation runs.
func (l Layout) script() string {
	return "PASSPHRASE='" + passphrase + "' LAYOUT=" + string(l) + "\n" + string(installScript)
}

// install runs the installation in a tiny guest.
func (l Layout) install(ctx context.Context, dir, disk, archive string) error {
	kernel, err := vm.FindKernel()
	if err != nil {
		return err
	}
	types, err := os.ReadFile(mke2fsTypes)
	if err != nil {
		return err
	}
	initrd := filepath.Join(dir, "initrd")
	err = vm.Initramfs{
		Kernel: kernel, Modules: []string{"vfat", "nls_cp437", "nls_ascii"},
		Programs: append(vm.Cryptsetup(), "/usr/sbin/sfdisk", "/usr/sbin/mkfs.fat", "/usr/sbin/mke2fs", "/usr/sbin/lvm"),
		Files:    []vm.File{{Path: mke2fsTypes, Mode: 0o644, Content: types}},
		Script:   l.script(),
	}.Write(initrd)
	if err != nil {
		return err
	}
	if err := sparse(disk); err != nil {
		return err
	}
	run, err := vm.Machine{
		Name: "installation", Kernel: kernel.Image, Initrd: initrd, Memory: 1024, Patience: longStep,
		Disks: []vm.Disk{{Path: disk}, {Path: archive, Snapshot: true}},
	}.Start(ctx)
	if err != nil {
		return err
	}
	defer run.Kill()
	if _, err := run.Expect(ctx, "install: done"); err != nil {
		return err
	}
	return run.Wait(ctx)
}

// WriteArchive writes files into a tar archive, which a guest that has it as a disk
// unpacks.
func WriteArchive(path string, files ...vm.File) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(out)
	for _, f := range files {
		header := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), Size: int64(len(f.Content))}
		if err := archive.WriteHeader(header); err != nil {
			return errors.Join(err, out.Close())
		}
		if _, err := archive.Write(f.Content); err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return errors.Join(archive.Close(), out.Close())
}

func sparse(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(diskSize), f.Close())
}
