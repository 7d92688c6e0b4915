package unlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// headerRoom is where both copies of a LUKS2 header go. cryptsetup wipes it
// before anything else, so that it is blank after a format that was cut short.
const headerRoom = 32 << 10

// checkBlank refuses a device that holds anything.
func checkBlank(ctx context.Context, path string) error {
	found, err := signatures(ctx, path)
	if err != nil {
		return err
	}
	if found != "" {
		return fmt.Errorf("%s is not blank: it has %s; if nothing on it is needed, run wipefs --all %s first", path, found, path)
	}
	device, err := os.Open(path)
	if err != nil {
		return err
	}
	defer device.Close()
	head := make([]byte, headerRoom)
	if _, err := io.ReadFull(device, head); err != nil {
		return fmt.Errorf("reading the beginning of %s: %w", path, err)
	}
	if len(bytes.Trim(head, "\x00")) > 0 {
		return fmt.Errorf("%s is not blank: it has no signature, but does not begin with zeros either; if nothing on it is needed, run dd if=/dev/zero of=%s bs=32K count=1 first", path, path)
	}
	return nil
}

// checkKind refuses what is neither a block device nor an image of one.
func checkKind(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode(); !mode.IsRegular() && (mode&os.ModeDevice == 0 || mode&os.ModeCharDevice != 0) {
		return fmt.Errorf("%s is no block device", path)
	}
	return nil
}

// checkUnused refuses a block device that is mounted, swapped to, part of a
// RAID, or open in any other way.
func checkUnused(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Mode().IsRegular() {
		return err
	}
	// Of block devices O_EXCL means: with nobody else.
	device, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s is in use: it or a partition of it is mounted, swap, or a part of another device", path)
	}
	if err != nil {
		return err
	}
	return device.Close()
}

// blkidNothing is blkid's exit code where it finds no signature.
const blkidNothing = 2

// signatures returns what blkid finds on a device, file systems, volumes and
// partition tables; empty where it finds nothing.
func signatures(ctx context.Context, path string) (string, error) {
	var out, said strings.Builder
	cmd := exec.CommandContext(ctx, "blkid", "--probe", "--output", "export", "--", path)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == blkidNothing && said.Len() == 0:
		return "", nil
	case err != nil && out.Len() == 0 && said.Len() > 0:
		return "", fmt.Errorf("looking for signatures on %s: %w: %s", path, err, strings.TrimSpace(said.String()))
	case err != nil && !errors.As(err, &exit):
		return "", fmt.Errorf("looking for signatures on %s: %w", path, err)
	}
	var found []string
	for _, line := range strings.Split(out.String(), "\n") {
		name, value, _ := strings.Cut(line, "=")
		switch name {
		case "TYPE":
			found = append(found, "a signature of "+value)
		case "PTTYPE":
			found = append(found, "a partition table of type "+value)
		}
	}
	if len(found) == 0 {
		found = []string{"signatures that contradict each other"}
	}
	return strings.Join(found, " and "), nil
}
