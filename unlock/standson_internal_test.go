package unlock

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sysfsTree makes the folders of block devices: of each, its mapping's name, which may
// be empty, and what it stands on.
func sysfsTree(t *testing.T, devices map[string][]string) string {
	t.Helper()
	dir := t.TempDir()
	for device, about := range devices {
		folder := filepath.Join(dir, device)
		require.NoError(t, os.MkdirAll(filepath.Join(folder, "slaves"), 0o700))
		if about[0] != "" {
			require.NoError(t, os.MkdirAll(filepath.Join(folder, "dm"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(folder, "dm", "name"), []byte(about[0]+"\n"), 0o600))
		}
		for _, slave := range about[1:] {
			require.NoError(t, os.Symlink(filepath.Join(dir, slave), filepath.Join(folder, "slaves", slave)))
		}
	}
	return dir
}

// A volume stands on its device also while it is reencrypted, when cryptsetup has
// mappings of its own in between; and on another mapping where that is its device.
func TestVolumeStandsOnItsDevice(t *testing.T) {
	dir := sysfsTree(t, map[string][]string{
		"vda3": {""}, "vdb": {""},
		"dm-0": {"root", "dm-1", "dm-2"}, "dm-1": {"root-hotzone-forward", "vda3"}, "dm-2": {"root-overlay", "vda3"},
		"dm-3": {"data", "dm-4"}, "dm-4": {"vg-data", "vdb"},
		"dm-5": {"plain", "vdb"},
		"dm-6": {"two", "vda3", "vdb"},
		"dm-7": {"data2", "dm-1"},
	})
	for device, want := range map[string]string{"dm-0/root": "vda3", "dm-3/data": "dm-4", "dm-5/plain": "vdb", "dm-7/data2": "dm-1"} {
		folder, name := filepath.Split(device)
		got, err := standsOn(filepath.Join(dir, folder), name)
		require.NoError(t, err, device)
		assert.Equal(t, want, got, device)
	}
	_, err := standsOn(filepath.Join(dir, "dm-6"), "two")
	require.ErrorContains(t, err, "stands on 2 devices")
}
