package e2e

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/BurntSushi/toml"

	"keywright.dev/test/vm"
	"keywright.dev/unlock"
)

//go:embed guest/init
var guestInit []byte

const (
	unlockPath = "/usr/sbin/keywright-unlock"
	mapping    = "root"
	osRelease  = "ID=keywright-e2e\nPRETTY_NAME=\"Keywright's test guest\"\n"
)

// Image is what a machine boots: a kernel, and an initramfs that trusts one
// service.
type Image struct {
	Unlock string // path of keywright-unlock
	Server string // URL
	Key    string // fingerprint of the service's key
	Volume string // LUKS UUID of the root
	// Root is the UUID of the file system to mount; empty: what is in the volume.
	Root     string
	Deadline time.Duration
}

// WriteInitrd writes the initramfs.
func (i Image) WriteInitrd(path string) error {
	kernel, err := vm.FindKernel()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(i.Unlock)
	if err != nil {
		return fmt.Errorf("building an initramfs: %w", err)
	}
	settings, err := i.config()
	if err != nil {
		return fmt.Errorf("building an initramfs: %w", err)
	}
	files := []vm.File{
		{Path: unlockPath, Mode: 0o755, Content: program},
		{Path: unlock.DefaultConfig, Mode: 0o644, Content: settings},
	}
	programs := vm.Cryptsetup()
	if i.Root != "" {
		programs = append(programs, "/usr/sbin/blkid")
		files = append(files, vm.File{Path: "/etc/root", Mode: 0o644, Content: []byte(i.Root + "\n")})
	}
	return vm.Initramfs{
		Kernel: kernel, Init: guestInit, Programs: programs,
		// The system mounts its ESP.
		Modules: []string{"vfat", "nls_cp437", "nls_ascii"},
		Files:   files,
	}.Write(path)
}

// config is what says where the keys of this image are, and whom it believes.
func (i Image) config() ([]byte, error) {
	deadline := unlock.Duration(i.Deadline)
	var text bytes.Buffer
	err := toml.NewEncoder(&text).Encode(unlock.Config{
		Servers: []string{i.Server}, ServiceKeys: []string{i.Key}, Deadline: &deadline,
		Volumes: []unlock.VolumeConfig{{Device: "UUID=" + i.Volume, Name: mapping, Root: true}},
	})
	return text.Bytes(), err
}

// WriteESP makes an EFI system partition with a unified kernel image of an
// initramfs and a command line.
func WriteESP(ctx context.Context, path, initrd, cmdline string) error {
	kernel, err := vm.FindKernel()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "esp-")
	if err != nil {
		return fmt.Errorf("building %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "uki.efi")
	err = vm.UKI{Kernel: kernel, Initrd: initrd, Cmdline: cmdline, OSRelease: osRelease}.Write(ctx, image)
	if err != nil {
		return err
	}
	return vm.WriteESP(ctx, path, image)
}
