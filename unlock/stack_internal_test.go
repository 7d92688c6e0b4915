package unlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// mounts is of a machine whose root is a btrfs subvolume, as the kernel shows it.
const mounts = `22 1 0:31 /@ / rw,relatime shared:1 - btrfs /dev/mapper/root rw,space_cache=v2,subvolid=256,subvol=/@
23 22 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=16k
41 22 0:40 / /srv rw - overlay overlay rw,lowerdir=/a - b,upperdir=/c
42 22 254:3 / /mnt/a\040b rw,relatime shared:3 master:7 - ext4 /dev/mapper/a\040b\134c rw
`

func TestMountIsFoundByItsID(t *testing.T) {
	for id, want := range map[string][2]string{
		"22": {"btrfs", "/dev/mapper/root"}, "41": {"overlay", "overlay"}, "42": {"ext4", `/dev/mapper/a b\c`},
	} {
		kind, source, found := findMount([]byte(mounts), id)
		assert.True(t, found, id)
		assert.Equal(t, want, [2]string{kind, source})
	}
	for _, id := range []string{"2", "", "254"} {
		_, _, found := findMount([]byte(mounts), id)
		assert.False(t, found, id)
	}
	_, _, found := findMount([]byte("22 1 0:31 / / rw - btrfs\n"), "22")
	assert.False(t, found)
}

func TestStackHasAllThatADeviceStandsOn(t *testing.T) {
	_, err := DefaultSysfs.below("0:0")
	assert.NoError(t, err, "what is not there stands on nothing")
	set := make(map[string]bool)
	assert.NoError(t, DefaultSysfs.stack("0:0", set))
	assert.Equal(t, map[string]bool{"0:0": true}, set)
}
