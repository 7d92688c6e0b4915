package vm

import (
	"fmt"
	"os"
	"path/filepath"
)

// Cache returns the folder in which downloads and images are kept between
// runs: $KEYWRIGHT_CACHE, else keywright in $XDG_CACHE_HOME or ~/.cache.
func Cache() (string, error) {
	if dir := os.Getenv("KEYWRIGHT_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w: set KEYWRIGHT_CACHE", err)
	}
	return filepath.Join(base, "keywright"), nil
}

// Kernel is a Debian kernel as its package unpacks.
type Kernel struct {
	Image   string // path of vmlinuz
	Modules string // path of lib/modules/RELEASE, with modules.dep
}

// Release returns what `uname -r` says in a guest that runs the kernel.
func (k Kernel) Release() string { return filepath.Base(k.Modules) }

// FindKernel returns the guest's kernel, which test/setup keeps at
// kernel/current in the [Cache].
func FindKernel() (Kernel, error) {
	cache, err := Cache()
	if err != nil {
		return Kernel{}, err
	}
	dir := filepath.Join(cache, "kernel", "current")
	image, err := theOne(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil {
		return Kernel{}, err
	}
	deps, err := theOne(filepath.Join(dir, "lib", "modules", "*", "modules.dep"))
	if err != nil {
		return Kernel{}, err
	}
	// The kernel of a PCR policy must not change under a run.
	image, err = filepath.EvalSymlinks(image)
	if err != nil {
		return Kernel{}, fmt.Errorf("finding the guest's kernel: %w", err)
	}
	return Kernel{Image: image, Modules: filepath.Dir(deps)}, nil
}

func theOne(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", fmt.Errorf("finding the guest's kernel at %s: %w", pattern, err)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("finding the guest's kernel: %d files match %s, want 1: run test/setup vm", len(found), pattern)
	}
	return found[0], nil
}
