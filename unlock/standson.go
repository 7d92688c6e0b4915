package unlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// standsOn returns the one device that a mapping stands on, whose folder in sysfs is
// given. While cryptsetup reencrypts it, that is below mappings of cryptsetup's own,
// such as NAME-hotzone-forward and NAME-overlay.
func standsOn(folder, name string) (string, error) {
	devices, err := below(folder, name)
	if err != nil {
		return "", err
	}
	slices.Sort(devices)
	if devices = slices.Compact(devices); len(devices) != 1 {
		return "", fmt.Errorf("mapping %s stands on %d devices, want one", name, len(devices))
	}
	return devices[0], nil
}

func below(folder, name string) (devices []string, err error) {
	slaves, err := os.ReadDir(filepath.Join(folder, "slaves"))
	if err != nil {
		return nil, err
	}
	for _, slave := range slaves {
		next := filepath.Join(folder, "slaves", slave.Name())
		between, err := os.ReadFile(filepath.Join(next, "dm", "name"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		called, of := strings.CutPrefix(strings.TrimSpace(string(between)), name+"-")
		if !of || !slices.Contains([]string{"hotzone-forward", "hotzone-backward", "overlay"}, called) {
			devices = append(devices, slave.Name())
			continue
		}
		more, err := below(next, name)
		if err != nil {
			return nil, err
		}
		devices = append(devices, more...)
	}
	return devices, nil
}
