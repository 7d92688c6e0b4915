package unlock

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultSysfs is where the kernel shows how devices stand on each other.
const DefaultSysfs Sysfs = "/sys"

// Sysfs tells how the block devices of a system stand on each other. A device is
// named by its number, major:minor.
type Sysfs string

// below returns what a device stands on directly, such as the physical volumes
// of a logical one; nothing for a disk or a partition.
func (s Sysfs) below(number string) ([]string, error) {
	folder := filepath.Join(string(s), "dev", "block", number, "slaves")
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking below device %s: %w", number, err)
	}
	var numbers []string
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(folder, entry.Name(), "dev"))
		if err != nil {
			return nil, fmt.Errorf("looking below device %s: %w", number, err)
		}
		numbers = append(numbers, strings.TrimSpace(string(text)))
	}
	return numbers, nil
}

var errNotOurs = errors.New("it is not on what this boot opened")

// reach returns the mappings that a device is or stands on. Each way down must
// end at one of them.
func (s Sysfs) reach(number string, mappings []Opened) ([]Opened, error) {
	for _, o := range mappings {
		if o.Table.Number == number {
			return []Opened{o}, nil
		}
	}
	below, err := s.below(number)
	if err != nil {
		return nil, err
	}
	if len(below) == 0 {
		return nil, fmt.Errorf("device %s: %w", number, errNotOurs)
	}
	var reached []Opened
	for _, next := range below {
		found, err := s.reach(next, mappings)
		if err != nil {
			return nil, err
		}
		reached = append(reached, found...)
	}
	return reached, nil
}

// stack adds a device and all that it stands on to a set.
func (s Sysfs) stack(number string, set map[string]bool) error {
	set[number] = true
	below, err := s.below(number)
	for _, next := range below {
		if err == nil {
			err = s.stack(next, set)
		}
	}
	return err
}

// above returns the names of the mappings that stand on a device, each behind
// those that stand on it. Anything else that does, such as a RAID, is an error.
func (s Sysfs) above(number string) ([]string, error) {
	folder := filepath.Join(string(s), "dev", "block", number, "holders")
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking above device %s: %w", number, err)
	}
	var names []string
	for _, entry := range entries {
		name, err := os.ReadFile(filepath.Join(folder, entry.Name(), "dm", "name")) //nolint:gosec // the kernel names its own files
		if err != nil {
			return nil, fmt.Errorf("looking above device %s: %s is no mapping: %w", number, entry.Name(), err)
		}
		holder, err := os.ReadFile(filepath.Join(folder, entry.Name(), "dev")) //nolint:gosec // the same
		if err != nil {
			return nil, fmt.Errorf("looking above device %s: %w", number, err)
		}
		higher, err := s.above(strings.TrimSpace(string(holder)))
		if err != nil {
			return nil, err
		}
		names = append(append(names, higher...), strings.TrimSpace(string(name)))
	}
	return names, nil
}

// DeviceNumber returns the number of a block device, or of the device that the
// file system of a directory is on.
func DeviceNumber(path string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return "", fmt.Errorf("looking for the device of %s: %w", path, &os.PathError{Op: "stat", Path: path, Err: err})
	}
	switch {
	case stat.Mode&unix.S_IFMT == unix.S_IFBLK:
		return numberOf(stat.Rdev), nil
	case unix.Major(stat.Dev) != 0:
		return numberOf(stat.Dev), nil
	}
	// A file system such as btrfs has a number of its own, which is no device's.
	kind, source, err := mountOf(path)
	if err != nil {
		return "", fmt.Errorf("looking for the device of %s: %w", path, err)
	}
	if unix.Stat(source, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s is of file system %s on %q, which is no device: name the directory or the device that it stands on", path, kind, source)
	}
	return numberOf(stat.Rdev), nil
}

func numberOf(device uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device))
}

// mountOf returns the type and the source of the mount that a directory is in.
func mountOf(path string) (kind, source string, err error) {
	dir, err := os.Open(path)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	about, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", dir.Fd()))
	if err != nil {
		return "", "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	_, id, found := strings.Cut(string(about), "mnt_id:")
	id, _, _ = strings.Cut(strings.TrimSpace(id), "\n")
	kind, source, known := findMount(mounts, id)
	if !found || !known {
		return "", "", errors.New("the kernel shows no mount of it")
	}
	return kind, source, nil
}

// findMount returns what proc_pid_mountinfo(5) says of a mount by its id.
func findMount(mounts []byte, id string) (kind, source string, found bool) {
	for line := range bytes.Lines(mounts) {
		place, about, _ := strings.Cut(string(line), " - ")
		if number, _, _ := strings.Cut(place, " "); number != id {
			continue
		}
		if fields := strings.Fields(about); len(fields) >= 2 {
			return fields[0], unescape(fields[1]), true
		}
	}
	return "", "", false
}

// unescape undoes what the kernel does to the characters that separate fields.
func unescape(field string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(field)
}
