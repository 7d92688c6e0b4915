//go:build vm && full

package debian_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/test/debian"
	"keywright.dev/test/e2e"
	"keywright.dev/unlock/luks"
)

// secondPart is in the last of the parts of the data disk that cryptsetup reencrypts
// between two writes of the header.
const secondPart = (16 + 32 + 8) << 20

// TestServersDataIsReencrypted has the agent of a Debian server, in the sandbox of its
// unit, reencrypt a volume that is mounted. The power is cut in the middle: the server
// boots unattended, by the cryptsetup of its initramfs, and its agent goes on to the end.
func TestServersDataIsReencrypted(t *testing.T) {
	s := newSite(t)
	s.addDisk(t, "data-disk")
	disk := s.machine.Data[1]
	s.enrollBoth(t, "head -c 24M /dev/urandom >/srv/filler")
	g := s.upAgain(t)
	tree := treeDigest(t, g)
	volume := s.volumeOf(t, strings.TrimSpace(command(t, g, "cryptsetup luksUUID /dev/vdc")))
	before := blockAt(t, disk, secondPart)
	_, err := s.service.Operate(t.Context(), "volume", "reencrypt", volume.ID, "--lose-keyslots", "--reason", "a test")
	require.NoError(t, err)
	for blockAt(t, disk, secondPart) == before {
		require.NoError(t, t.Context().Err())
		time.Sleep(time.Millisecond)
	}
	g.Crash()

	g = s.upAgain(t)
	whole(t, g)
	assert.Equal(t, tree, treeDigest(t, g))
	command(t, g, "until journalctl -b -u "+agent+" | grep 'is reencrypted$'; do sleep 1; done")
	assert.Empty(t, command(t, g, "journalctl -b --no-pager -q -p warning -u "+agent))
	assert.NotContains(t, command(t, g, "journalctl -b --no-pager -u "+agent), "KW-")
	assert.Equal(t, tree, treeDigest(t, g))
	known := s.volumeOf(t, volume.UUID)
	assert.Nil(t, known.Order)
	assert.NotEqual(t, volume.Identity, known.Identity)
	powerOff(t, g)

	header, err := e2e.ReadHeader(disk)
	require.NoError(t, err, "no requirement, no keyslot of a reencryption")
	assert.Len(t, header.OwnSlots(volume.ID), 1)
	assert.Len(t, header.SlotsFor(volume.ID, luks.PurposeRecovery), 1)
	assert.Len(t, header.Inventory().Keyslots, 2)
	g = s.upAgain(t)
	whole(t, g)
	assert.Equal(t, tree, treeDigest(t, g))
	powerOff(t, g)
}

// treeDigest is over the names and the content of all files on the data volume.
func treeDigest(t *testing.T, g *debian.Guest) string {
	t.Helper()
	return command(t, g, "mountpoint -q /srv && find /srv -xdev -type f | sort | xargs sha256sum | sha256sum")
}

// volumeOf returns what the service knows of the server's volume with a LUKS UUID.
func (s *site) volumeOf(t *testing.T, uuid string) api.Volume {
	t.Helper()
	list, err := s.service.Volumes(t.Context(), "web-17")
	require.NoError(t, err)
	at := slices.IndexFunc(list, func(v api.Volume) bool { return v.UUID == uuid })
	require.GreaterOrEqual(t, at, 0, "the server has no volume "+uuid)
	return list[at]
}

func blockAt(t *testing.T, path string, place int64) string {
	t.Helper()
	disk, err := os.Open(path)
	require.NoError(t, err)
	defer disk.Close()
	block := make([]byte, 4096)
	_, err = disk.ReadAt(block, place)
	require.NoError(t, err)
	return string(block)
}
