package vm

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// libraryDirs is where a Debian host keeps shared libraries.
func libraryDirs() []string {
	return []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
}

// Programs returns the host files that ELF programs need to run: themselves,
// their interpreters and all shared libraries, each under the path at which the
// loader looks for it.
func Programs(programs ...string) ([]File, error) {
	found := map[string]File{}
	queue := append([]string{}, programs...)
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if _, done := found[name]; done {
			continue
		}
		file, needed, err := loadELF(name)
		if err != nil {
			return nil, err
		}
		found[name] = file
		queue = append(queue, needed...)
	}
	files := make([]File, 0, len(found))
	for _, file := range found {
		files = append(files, file)
	}
	return files, nil
}

// loadELF reads an ELF file of the host and returns the paths that it needs.
func loadELF(name string) (File, []string, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return File{}, nil, fmt.Errorf("taking %s into the initramfs: %w", name, err)
	}
	needed, err := elfNeeds(name)
	if err != nil {
		return File{}, nil, fmt.Errorf("taking %s into the initramfs: %w", name, err)
	}
	return File{Path: name, Mode: 0o755, Content: content}, needed, nil
}

func elfNeeds(name string) ([]string, error) {
	f, err := elf.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var needed []string
	if section := f.Section(".interp"); section != nil {
		interp, err := section.Data()
		if err != nil {
			return nil, err
		}
		needed = append(needed, string(interp[:len(interp)-1]))
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, library := range libraries {
		where, err := findLibrary(library)
		if err != nil {
			return nil, err
		}
		needed = append(needed, where)
	}
	return needed, nil
}

func findLibrary(name string) (string, error) {
	for _, dir := range libraryDirs() {
		where := filepath.Join(dir, name)
		if _, err := os.Stat(where); err == nil {
			return where, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("the shared library %s is in none of %v", name, libraryDirs())
}
