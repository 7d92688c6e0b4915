package unlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// The members of a RAID and the paths of a multipath device show the header of
// what stands on them.
func TestTopmostDeviceIsTheVolume(t *testing.T) {
	stand := map[string][]string{
		"sda": {"md0"}, "sdb": {"md0"}, "md0": {"dm-3"}, "sdc": {"dm-0"}, "sdd": {"dm-0"}, "dm-0": {}, "sde": {"dm-9"},
	}
	on := func(name string) []string { return stand[name] }
	for want, names := range map[string][]string{
		"md0":  {"md0", "sda", "sdb"},
		"dm-0": {"dm-0", "sdc", "sdd"},
		"sde":  {"sde"}, // what is open on it does not show its header
	} {
		assert.Equal(t, []string{want}, topmost(names, on))
	}
	assert.Equal(t, []string{"sda", "sdb"}, topmost([]string{"sda", "sdb"}, on), "not assembled yet")
	assert.Empty(t, topmost(nil, on))
}
