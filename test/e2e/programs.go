package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"keywright.dev/test/shipped"
)

// Programs are the paths of what is shipped.
type Programs struct {
	Service string // keywright
	Unlock  string // keywright-unlock
}

// ProgramsIn returns the programs of a folder.
func ProgramsIn(dir string) (Programs, error) {
	p := Programs{filepath.Join(dir, "keywright"), filepath.Join(dir, "keywright-unlock")}
	for _, path := range []string{p.Service, p.Unlock} {
		if _, err := os.Stat(path); err != nil {
			return Programs{}, fmt.Errorf("finding Keywright's programs: %w: run make build", err)
		}
	}
	return p, nil
}

// Build builds the programs into a folder, as make build does.
func Build(ctx context.Context, dir string) (Programs, error) {
	if err := shipped.Build(ctx, dir, "keywright", "keywright-unlock"); err != nil {
		return Programs{}, err
	}
	return ProgramsIn(dir)
}
