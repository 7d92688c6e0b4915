//go:build vmguest

// These tests run in the guest that TestDeviceMapper boots, as root, with
// device-mapper and without udev. /dev/vda has sectors of 512 bytes, /dev/vdb of
// 4096; "installer" opens keyslot 0 of both (argon2id), "machine" keyslot 1.

package luks_test

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keywright.dev/unlock/luks"
)

// machine opens keyslot 1, which costs next to nothing; the passphrase's argon2id
// takes seconds under emulation.
const machine = "machine"

var disks = map[string]uint32{"/dev/vda": 512, "/dev/vdb": 4096}

func run(t *testing.T, stdin, name string, arguments ...string) string {
	t.Helper()
	cmd := exec.Command(name, arguments...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, arguments, out)
	return string(out)
}

// state is all that dmsetup tells of a mapping.
func state(t *testing.T, name string) string {
	t.Helper()
	return run(t, "", "dmsetup", "table", "--showkeys", name) + run(t, "", "dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid,attr", name)
}

// openWith opens a volume with what opens its keyslot 1.
func openWith(v *luks.Volume, text, name string, options luks.Options) (*luks.Mapping, error) {
	volumeKey, err := v.UnsealAny(context.Background(), []int{1}, key(text))
	if err != nil {
		return nil, err
	}
	defer volumeKey.Wipe()
	return v.Open(context.Background(), volumeKey, name, options)
}

func open(t *testing.T, v *luks.Volume, name string, options luks.Options) *luks.Mapping {
	t.Helper()
	m, err := openWith(v, machine, name, options)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := luks.Close(context.Background(), name); !errors.Is(err, luks.ErrNoMapping) {
			assert.NoError(t, err)
		}
	})
	return m
}

func TestGuestMappingEqualsCryptsetups(t *testing.T) {
	for disk, sectorSize := range disks {
		for _, options := range []luks.Options{{}, {Discards: true}, {ReadOnly: true}} {
			v := readVolume(t, disk)
			m := open(t, v, "data", options)
			ours := state(t, "data")
			assert.Equal(t, sectorSize, m.Table.SectorSize)
			assert.Equal(t, options.ReadOnly, m.Table.ReadOnly)
			require.NoError(t, luks.Close(t.Context(), "data"))

			arguments := []string{"open", "--key-slot", "1", "--key-file", "-", disk, "data"}
			if options.Discards {
				arguments = append(arguments, "--allow-discards")
			}
			if options.ReadOnly {
				arguments = append(arguments, "--readonly")
			}
			run(t, machine, "cryptsetup", arguments...)
			assert.Equal(t, state(t, "data"), ours)
			theirs, err := luks.ReadTable("data")
			require.NoError(t, err)
			assert.Equal(t, theirs, m.Table)
			require.NoError(t, v.Check(theirs))
			run(t, "", "cryptsetup", "close", "data")
		}
	}
}

func TestGuestReadsTheData(t *testing.T) {
	for disk := range disks {
		m := open(t, readVolume(t, disk), "data", luks.Options{})
		assert.Equal(t, "/dev/mapper/data", m.Path)
		require.NoError(t, unix.Mount(m.Path, "/mnt", "ext4", unix.MS_RDONLY, ""))
		motto, err := os.ReadFile("/mnt/motto")
		require.NoError(t, unix.Unmount("/mnt", 0))
		require.NoError(t, err)
		assert.Equal(t, "keep calm and rotate\n", string(motto))
		assert.Contains(t, run(t, "", "cryptsetup", "status", "data"), "keyring")
		require.NoError(t, luks.Close(t.Context(), "data"))
	}
}

func TestGuestKeyStandsInNoTableAndNoKeyring(t *testing.T) {
	v := readVolume(t, "/dev/vda")
	volumeKey, err := v.Unseal(1, key(machine))
	require.NoError(t, err)
	m := open(t, v, "data", luks.Options{})
	table := run(t, "", "dmsetup", "table", "--showkeys", "data")
	assert.Contains(t, table, ":64:logon:cryptsetup:"+v.Header().UUID+"-d0 ")
	assert.NotContains(t, table, hex.EncodeToString(volumeKey.Expose())[:16])
	assert.Equal(t, 64, m.Table.KeySize)
	// The kernel collects a revoked key that nothing links a moment later.
	assert.Eventually(t, func() bool {
		keys, err := os.ReadFile("/proc/keys")
		return err == nil && !strings.Contains(string(keys), "cryptsetup:")
	}, 30*time.Second, 100*time.Millisecond)
}

// Row 11: what is put on the disk after the header was validated is not opened.
func TestGuestAttack11HeaderSwappedAfterValidation(t *testing.T) {
	v := readVolume(t, "/dev/vda")
	honest, err := v.Identity().Digest()
	require.NoError(t, err)
	disk, err := os.OpenFile("/dev/vda", os.O_RDWR, 0)
	require.NoError(t, err)
	defer disk.Close()
	saved, forged := make([]byte, 32<<10), make([]byte, 32<<10)
	_, err = disk.ReadAt(saved, 0)
	require.NoError(t, err)
	other, err := os.Open("/dev/vdb")
	require.NoError(t, err)
	defer other.Close()
	_, err = other.ReadAt(forged, 0)
	require.NoError(t, err)
	_, err = disk.WriteAt(forged, 0)
	require.NoError(t, err)
	defer func() {
		_, err := disk.WriteAt(saved, 0)
		assert.NoError(t, err)
	}()

	swapped, err := readVolume(t, "/dev/vda").Identity().Digest()
	require.NoError(t, err)
	require.NotEqual(t, honest, swapped)
	m := open(t, v, "data", luks.Options{})
	assert.EqualValues(t, 512, m.Table.SectorSize)
	assert.Contains(t, m.Table.UUID, strings.ReplaceAll(v.Header().UUID, "-", ""))
	require.NoError(t, luks.Close(t.Context(), "data"))
}

// Row 25: a plain device, and a mapping of another volume, are not the volume's.
func TestGuestAttack25RootThatIsNotOurs(t *testing.T) {
	v, other := readVolume(t, "/dev/vda"), readVolume(t, "/dev/vdb")
	_, err := luks.ReadTableOf("/dev/vda")
	require.ErrorIs(t, err, luks.ErrNoMapping)
	open(t, other, "root", luks.Options{})
	table, err := luks.ReadTableOf("/dev/mapper/root")
	require.NoError(t, err)
	require.NoError(t, other.Check(table))
	require.Error(t, v.Check(table))

	require.NoError(t, luks.Close(t.Context(), "root"))
	run(t, "", "dmsetup", "create", "root", "--table", "0 8 linear /dev/vda 0")
	_, err = luks.ReadTableOf("/dev/mapper/root")
	require.ErrorContains(t, err, `target "linear"`)
	run(t, "", "dmsetup", "remove", "root")
}

func TestGuestInUse(t *testing.T) {
	v := readVolume(t, "/dev/vda")
	open(t, v, "data", luks.Options{})
	require.ErrorIs(t, v.Ready(t.Context(), "again"), luks.ErrBusy, "the device is taken")
	_, err := openWith(v, machine, "again", luks.Options{})
	require.ErrorIs(t, err, luks.ErrBusy, "the device is taken")
	other := readVolume(t, "/dev/vdb")
	require.ErrorIs(t, other.Ready(t.Context(), "data"), luks.ErrBusy, "the name is taken")
	_, err = openWith(other, machine, "data", luks.Options{})
	require.ErrorIs(t, err, luks.ErrBusy, "the name is taken")
	require.NoError(t, other.Ready(t.Context(), "free"))
	table, err := luks.ReadTable("data")
	require.NoError(t, err)
	require.NoError(t, v.Check(table), "the mapping that was there is untouched")

	held, err := os.Open("/dev/mapper/data")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, luks.Close(ctx, "data"), luks.ErrBusy)
	require.NoError(t, held.Close())
	require.NoError(t, luks.Close(t.Context(), "data"))
}

// What a client that was killed in the middle left of the mapping does not keep
// the next from opening it.
func TestGuestHalfMadeMapping(t *testing.T) {
	v := readVolume(t, "/dev/vda")
	uuid := "CRYPT-LUKS2-" + strings.ReplaceAll(v.Header().UUID, "-", "") + "-data"
	for name, prepare := range map[string]func(){
		"created": func() { run(t, "", "dmsetup", "create", "data", "--notable", "--uuid", uuid) },
		"loaded, which takes the device": func() {
			run(t, "", "dmsetup", "create", "data", "--notable", "--uuid", uuid)
			run(t, "", "dmsetup", "load", "data", "--table", "0 8 linear /dev/vda 0")
		},
	} {
		prepare()
		m := open(t, v, "data", luks.Options{})
		require.NoError(t, v.Check(m.Table), name)
		require.NoError(t, luks.Close(t.Context(), "data"))
	}

	run(t, "", "dmsetup", "create", "data", "--notable", "--uuid", "somebody-elses")
	_, err := openWith(v, machine, "data", luks.Options{})
	require.ErrorIs(t, err, luks.ErrBusy)
	assert.Contains(t, run(t, "", "dmsetup", "info", "-c", "--noheadings", "-o", "uuid", "data"), "somebody-elses")
	run(t, "", "dmsetup", "remove", "data")
}

func TestGuestNothingStaysBehind(t *testing.T) {
	v := readVolume(t, "/dev/vda")
	_, err := openWith(v, "wrong", "data", luks.Options{})
	require.ErrorIs(t, err, luks.ErrWrongKey)
	_, err = luks.ReadTable("data")
	require.ErrorIs(t, err, luks.ErrNoMapping)
	require.ErrorIs(t, luks.Close(t.Context(), "data"), luks.ErrNoMapping)

	// A stale node of the same name is replaced.
	require.NoError(t, os.WriteFile("/dev/mapper/data", []byte("stale"), 0o600))
	m := open(t, v, "data", luks.Options{})
	info, err := os.Stat(m.Path)
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeDevice)
	require.NoError(t, luks.Close(t.Context(), "data"))
	_, err = os.Stat(m.Path)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestGuestKeyslotsOfALiveDevice(t *testing.T) {
	v := readVolume(t, "/dev/vdb")
	open(t, v, "data", luks.Options{})
	ctx := t.Context()
	program := luks.Cryptsetup{}
	require.NoError(t, program.AddKeyslot(ctx, "/dev/vdb", key(machine), key("pending"), 3))
	require.NoError(t, program.TestKey(ctx, "/dev/vdb", 3, key("pending")))
	require.NoError(t, luks.Close(ctx, "data"))

	reread := readVolume(t, "/dev/vdb")
	volumeKey, err := reread.UnsealAny(ctx, []int{1, 3}, key("pending"))
	require.NoError(t, err, "a slot that the key does not open does not keep the next from being tried")
	_, err = reread.Open(ctx, volumeKey, "data", luks.Options{})
	require.NoError(t, err)
	require.NoError(t, luks.Close(ctx, "data"))
	require.NoError(t, program.KillSlot(ctx, "/dev/vdb", 3, key(machine)))
}
