package e2e

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"

	"keywright.dev/kms/secret"
	"keywright.dev/test/vm"
	"keywright.dev/unlock/luks"
)

//go:embed guest/system
var guestSystem []byte

// DiskSize is that of a disk of which nobody says more, in bytes.
const DiskSize = 64 << 20

// System is what is on a machine's encrypted disk.
type System struct {
	Unlock string // path of keywright-unlock
	Server string // URL
	Key    string // fingerprint of the service's key
	Name   string // that the machine will propose
	Motto  string // one line, which a boot shows
	Task   string // a shell script, which each boot of the system ends with
	Files  []vm.File
	Size   int64 // of the disk, in bytes; 0: DiskSize
}

// WriteDisk makes the disk as an installer leaves it: LUKS2 with one
// passphrase, ext4, the system. It returns the LUKS UUID.
func (s System) WriteDisk(ctx context.Context, path string, passphrase secret.Bytes) (uuid string, err error) {
	root, err := os.MkdirTemp(filepath.Dir(path), "root-")
	if err != nil {
		return "", fmt.Errorf("making the disk of %s: %w", s.Name, err)
	}
	defer os.RemoveAll(root)
	if err := s.writeTree(root); err != nil {
		return "", fmt.Errorf("making the disk of %s: %w", s.Name, err)
	}
	if err := (vm.LUKSDisk{Size: cmp.Or(s.Size, DiskSize), Passphrase: passphrase, Root: root}).Write(ctx, path); err != nil {
		return "", err
	}
	header, err := ReadHeader(path)
	if err != nil {
		return "", err
	}
	return header.Header().UUID, nil
}

// ReadHeader reads and validates the LUKS header of a disk image.
func ReadHeader(path string) (*luks.Volume, error) {
	disk, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	header, err := luks.ReadDevice(disk)
	if err != nil {
		return nil, err
	}
	return header.Validate()
}

func (s System) writeTree(root string) error {
	files, err := vm.Programs(append(vm.Cryptsetup(), "/bin/busybox")...)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(s.Unlock)
	if err != nil {
		return err
	}
	installer := fmt.Sprintf("server=%s\nservice_key=%s\nname=%s\n", s.Server, s.Key, s.Name)
	files = append(files, vm.Drain(),
		vm.File{Path: unlockPath, Mode: 0o755, Content: program},
		vm.File{Path: "/sbin/init", Mode: 0o755, Content: guestSystem},
		vm.File{Path: "/etc/installer", Mode: 0o644, Content: []byte(installer)},
		vm.File{Path: "/etc/motto", Mode: 0o644, Content: []byte(s.Motto + "\n")},
		vm.File{Path: "/etc/task", Mode: 0o755, Content: []byte(s.Task)},
	)
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "boot/efi"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, file := range append(files, s.Files...) {
		if err := writeFile(filepath.Join(root, file.Path), file); err != nil {
			return err
		}
	}
	return linkApplets(root)
}

func writeFile(path string, file vm.File) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, file.Content, file.Mode.Perm())
}

// linkApplets gives busybox the names that the system uses.
func linkApplets(root string) error {
	for _, name := range []string{"cat", "mount", "poweroff", "setsid", "sh", "stty", "sync", "touch", "umount"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}
