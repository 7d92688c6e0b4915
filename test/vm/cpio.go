package vm

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// File is one file of an initramfs.
type File struct {
	Path    string      // absolute, in the guest
	Mode    fs.FileMode // permission bits, and fs.ModeSymlink for a link
	Content []byte      // a link's content is its target
}

// Bits of a newc header's mode, see the kernel's buffer-format.rst.
const (
	cpioDirectory = 0o040000
	cpioRegular   = 0o100000
	cpioLink      = 0o120000
	cpioTrailer   = "TRAILER!!!"
)

// writeCPIO writes the files and the directories above them as a newc archive
// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux): sorted
// by path, owned by root, with times of zero, so that equal files give equal
// bytes. Two files of one path are refused.
func writeCPIO(w io.Writer, files []File) error {
	entries, err := archiveEntries(files)
	if err != nil {
		return err
	}
	for inode, entry := range entries {
		if err := writeEntry(w, inode+1, entry); err != nil {
			return fmt.Errorf("writing %s to the archive: %w", entry.Path, err)
		}
	}
	return writeEntry(w, 0, File{Path: cpioTrailer})
}

// archiveEntries returns what the archive holds, in order: paths are relative.
func archiveEntries(files []File) ([]File, error) {
	byPath := map[string]File{}
	for _, file := range files {
		name := strings.TrimPrefix(path.Clean(file.Path), "/")
		if !path.IsAbs(file.Path) || name == "" {
			return nil, fmt.Errorf("archiving %q: the path must be absolute and name a file", file.Path)
		}
		if _, twice := byPath[name]; twice {
			return nil, fmt.Errorf("archiving %s: it is there twice", file.Path)
		}
		file.Path = name
		byPath[name] = file
	}
	for _, file := range files {
		if err := addParents(byPath, file.Path); err != nil {
			return nil, err
		}
	}
	entries := make([]File, 0, len(byPath))
	for _, entry := range byPath {
		entries = append(entries, entry)
	}
	// A directory sorts before what is in it.
	slices.SortFunc(entries, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return entries, nil
}

func addParents(byPath map[string]File, name string) error {
	for dir := path.Dir(path.Clean(name)); dir != "/"; dir = path.Dir(dir) {
		relative := strings.TrimPrefix(dir, "/")
		above, known := byPath[relative]
		if known && !above.Mode.IsDir() {
			return fmt.Errorf("archiving %s: %s is no directory", name, dir)
		}
		byPath[relative] = File{Path: relative, Mode: fs.ModeDir | 0o755}
	}
	return nil
}

func writeEntry(w io.Writer, inode int, f File) error {
	// magic, inode, mode, uid, gid, links, mtime, size, dev ×2, rdev ×2, name size, checksum
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		inode, cpioMode(f), 0, 0, 1, 0, len(f.Content), 0, 0, 0, 0, len(f.Path)+1, 0)
	name := header + f.Path + "\x00"
	if _, err := io.WriteString(w, name+padding(len(name))); err != nil {
		return err
	}
	if _, err := w.Write(f.Content); err != nil {
		return err
	}
	_, err := io.WriteString(w, padding(len(f.Content)))
	return err
}

func cpioMode(f File) uint32 {
	mode := uint32(f.Mode.Perm())
	switch {
	case f.Path == cpioTrailer:
		return 0
	case f.Mode.IsDir():
		return mode | cpioDirectory
	case f.Mode&fs.ModeSymlink != 0:
		return mode | cpioLink
	default:
		return mode | cpioRegular
	}
}

func padding(size int) string { return "\x00\x00\x00"[:(4-size%4)%4] }
