package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"keywright.dev/test/process"
)

const (
	// espVolumeID is fixed so that equal content gives an equal image.
	espVolumeID = "4b575231"
	// espSlack is room for FAT's own structures.
	espSlack = 4 << 20
	// bootPath is what firmware starts from a disk without a boot entry.
	bootPath = "EFI/BOOT/BOOTX64.EFI"
)

// WriteESP writes a disk image to path: a bare FAT file system with the boot
// application at \EFI\BOOT\BOOTX64.EFI.
func WriteESP(ctx context.Context, path, application string) error {
	info, err := os.Stat(application)
	if err != nil {
		return fmt.Errorf("building the ESP %s: %w", path, err)
	}
	// 34 MiB and more, so that mkfs.fat makes FAT32, as firmware demands of an ESP.
	size := max(info.Size()+info.Size()/64+espSlack, 40<<20)
	if err := createSparse(path, (size+pageSize-1)&^(pageSize-1)); err != nil {
		return fmt.Errorf("building the ESP: %w", err)
	}
	steps := [][]string{
		{"/usr/sbin/mkfs.fat", "-F", "32", "-s", "1", "-i", espVolumeID, "-n", "ESP", "--invariant", path},
		{"mmd", "-i", path, "::EFI", "::EFI/BOOT"},
		{"mcopy", "-i", path, application, "::" + bootPath},
	}
	for _, step := range steps {
		cmd := exec.CommandContext(ctx, step[0], step[1:]...)
		// mtools stamp what they write with the time, unless told one.
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0", "TZ=UTC")
		if err := process.Run(ctx, cmd); err != nil {
			return fmt.Errorf("building the ESP %s: %w", path, err)
		}
	}
	return nil
}

// createSparse makes an empty file of size bytes, replacing what was there.
func createSparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Close()
}
