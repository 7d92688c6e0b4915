package initramfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// reproducible has mkinitramfs make the same of the same files: whatever is newer gets
// this time. https://reproducible-builds.org/specs/source-date-epoch/
const reproducible = "SOURCE_DATE_EPOCH=1"

// Ahead makes in a folder what [Tools.UpdateAsAhead] will put in the place of each
// initramfs, which stays as it is, and returns where that is by the path of the
// initramfs. The same comes out unless something changes meanwhile, or a hook of the
// system's puts something random into it.
func (t Tools) Ahead(ctx context.Context, folder string) (map[string]string, error) {
	const prefix = "initrd.img-"
	images, err := filepath.Glob(filepath.Join(t.Root, "/boot", prefix+"*"))
	if err != nil {
		return nil, err
	}
	made := make(map[string]string)
	for _, image := range images {
		version := strings.TrimPrefix(filepath.Base(image), prefix)
		if _, err := os.Stat(filepath.Join(t.Root, "/boot/vmlinuz-"+version)); err != nil {
			continue // a copy that somebody keeps
		}
		made[image] = filepath.Join(folder, filepath.Base(image))
		if err := runReproducibly(ctx, "mkinitramfs", "-o", made[image], version); err != nil {
			return nil, err
		}
	}
	if len(made) == 0 {
		return nil, fmt.Errorf("making an initramfs ahead: there is none below %s whose kernel is there", filepath.Join(t.Root, "/boot"))
	}
	return made, nil
}

// UpdateAsAhead makes the initramfs of every kernel anew, as [Tools.Ahead] did.
func (t Tools) UpdateAsAhead(ctx context.Context) error {
	return runReproducibly(ctx, "update-initramfs", "-u", "-k", "all")
}

func runReproducibly(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), reproducible)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %.2000s", program, err, output)
	}
	return nil
}
