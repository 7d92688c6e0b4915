// Package packages builds the Debian packages for tests, and installs them where
// nothing else is: in a tree of Debian that has namespaces of its own.
package packages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Debs are the paths of packages.
type Debs struct {
	Service string // keywright
	Unlock  string // keywright-unlock
}

// Build builds the packages of an architecture into a folder, as make packages
// does, as if the commit had that version.
func Build(ctx context.Context, dir, version, arch string) (Debs, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	top, err := cmd.Output()
	if err != nil {
		return Debs{}, fmt.Errorf("finding the module: %w", err)
	}
	cmd = exec.CommandContext(ctx, filepath.Join(strings.TrimSpace(string(top)), "cmd", "packages", "build"), "--out", dir, arch)
	cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH=1800000000")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return Debs{}, fmt.Errorf("building the packages: %w: %s", err, said.String())
	}
	paths := strings.Fields(string(out))
	if len(paths) != 2 { //nolint:mnd // both
		return Debs{}, fmt.Errorf("building the packages: these were built: %q", paths)
	}
	return Debs{Service: paths[0], Unlock: paths[1]}, nil
}
