//go:build vmguest

// These tests run in the guest that TestOnDeviceMapper boots, as root, with
// device-mapper and without udev. /dev/vda is an enrolled volume whose keyslot 1
// "machine" opens; /dev/vdb is a file system in the clear.

package unlock_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// openRoot boots for real, but for the TPM and the service.
func openRoot(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	configs := []unlock.VolumeConfig{{Device: "/dev/vda", Name: "root", Root: true}}
	volumes, err := unlock.Search{Clock: r.clock, Deadline: r.clock.now, Announce: r.boot.Announce}.Volumes(t.Context(), configs)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, volumes.Close()) })
	v := volumes[0]
	r.boot.Volumes, r.boot.Unseal, r.boot.Opener = volumes, unlock.Unseal, unlock.Disks{}
	r.service.release.Secrets = []exchange.ReleasedSecret{{
		Volume: v.ID, UUID: v.LUKS.Header().UUID, Version: 1, Identity: v.Identity, Key: secret.Copy([]byte("machine")),
	}}
	require.NoError(t, r.run(t))
	t.Cleanup(func() { assert.NoError(t, luks.Discard(context.Background(), "root")) })
	return r
}

// handOver closes after the boot of r, with everything real but the TPM and the
// reset. Without a root it hands over to a shell.
func handOver(t *testing.T, r *rig, root string) (resets int, err error) {
	t.Helper()
	dir := unlock.RunDir(filepath.Join(r.dir, "run"))
	err = (&unlock.Closing{
		TPM: func() (unlock.ReleasePCR, error) { return r.tpm, nil }, Root: root, Shell: root == "",
		EndBoot: dir.EndBoot, Opened: dir.ReadOpened, Keep: dir.Opened, Unmap: luks.Close,
		Device: unlock.DeviceNumber, Sysfs: unlock.DefaultSysfs, Table: luks.ReadTable,
		Clock: &fakeClock{now: time.Unix(0, 0)}, Announce: func(line string) { t.Log(line) },
		Reboot: func() error { resets++; return nil },
	}).Run(t.Context())
	return resets, err
}

// mounted mounts a device for the test.
func mounted(t *testing.T, device string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, unix.Mount(device, dir, "ext4", unix.MS_RDONLY, ""))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, 0)) })
	return dir
}

// stacked makes a mapping of device-mapper's own for the test.
func stacked(t *testing.T, table string) string {
	t.Helper()
	dmsetup(t, "create", "stacked", "--table", table)
	t.Cleanup(func() { dmsetup(t, "remove", "stacked") })
	return "/dev/mapper/stacked"
}

func dmsetup(t *testing.T, arguments ...string) {
	t.Helper()
	out, err := exec.Command("dmsetup", arguments...).CombinedOutput()
	require.NoError(t, err, "%v: %s", arguments, out)
}

func TestGuestRootIsHandedOver(t *testing.T) {
	for name, root := range map[string]func(*testing.T) string{
		"mounted":      func(t *testing.T) string { return mounted(t, "/dev/mapper/root") },
		"device":       func(*testing.T) string { return "/dev/mapper/root" },
		"device on it": func(t *testing.T) string { return stacked(t, "0 2048 linear /dev/mapper/root 0") },
		"mounted device on it": func(t *testing.T) string {
			return mounted(t, stacked(t, "0 49152 linear /dev/mapper/root 0"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRoot(t)
			resets, err := handOver(t, r, root(t))
			require.NoError(t, err)
			assert.Zero(t, resets)
		})
	}
}

// Row 25: whatever a thief brings as a root does not see the data.
func TestGuestAttack25RootOnAnotherDevice(t *testing.T) {
	for name, root := range map[string]func(*testing.T) string{
		"mounted":      func(t *testing.T) string { return mounted(t, "/dev/vdb") },
		"device":       func(*testing.T) string { return "/dev/vdb" },
		"device on it": func(t *testing.T) string { return stacked(t, "0 2048 linear /dev/vdb 0") },
		"half of it": func(t *testing.T) string {
			return stacked(t, "0 2048 linear /dev/mapper/root 0\n2048 2048 linear /dev/vdb 0")
		},
		"the initramfs": func(*testing.T) string { return "/" },
	} {
		t.Run(name, func(t *testing.T) {
			r := openRoot(t)
			resets, err := handOver(t, r, root(t))
			failed(t, unlock.CodeRoot, err)
			assert.Equal(t, 1, resets)
		})
	}
}

// Row 25: a mapping that was made anew, with another table, is not the one that
// was opened.
func TestGuestAttack25TableChanged(t *testing.T) {
	r := openRoot(t)
	dmsetup(t, "suspend", "root")
	dmsetup(t, "load", "root", "--table", "0 2048 linear /dev/vdb 0")
	dmsetup(t, "resume", "root")
	resets, err := handOver(t, r, "/dev/mapper/root")
	failed(t, unlock.CodeRoot, err)
	assert.Equal(t, 1, resets)
}

// What is open is listed with the options that it was opened with.
func TestGuestOpenVolumesAreListed(t *testing.T) {
	opened := openRoot(t).boot.Volumes[0]
	devices, err := unlock.CryptDevices()
	require.NoError(t, err)
	assert.Equal(t, []unlock.Device{{Path: "/dev/vda", Name: "root"}}, devices)

	require.NoError(t, luks.Close(t.Context(), "root"))
	volumeKey, err := unlock.Unseal(t.Context(), opened, secret.Copy([]byte("machine")))
	require.NoError(t, err)
	_, err = opened.LUKS.Open(t.Context(), volumeKey, "root", luks.Options{Discards: true})
	require.NoError(t, err)
	devices, err = unlock.CryptDevices()
	require.NoError(t, err)
	assert.Equal(t, []unlock.Device{{Path: "/dev/vda", Name: "root", Options: []string{"discard"}}}, devices)
}

// Row 16: a shell finds nothing that was opened with released keys, nor what
// stood on it.
func TestGuestAttack16ShellAfterARelease(t *testing.T) {
	r := openRoot(t)
	dmsetup(t, "create", "below", "--table", "0 4096 linear /dev/mapper/root 0")
	dmsetup(t, "create", "above", "--table", "0 2048 linear /dev/mapper/below 0")
	resets, err := handOver(t, r, "")
	require.NoError(t, err)
	assert.Zero(t, resets)
	for _, name := range []string{"root", "below", "above"} {
		_, err := luks.ReadTable(name)
		require.ErrorIs(t, err, luks.ErrNoMapping, name)
	}
}

// Row 16: what is mounted cannot be closed.
func TestGuestAttack16ShellBesideAMountedRoot(t *testing.T) {
	r := openRoot(t)
	mounted(t, "/dev/mapper/root")
	resets, err := handOver(t, r, "")
	failed(t, unlock.CodeOpen, err)
	assert.Equal(t, 1, resets)
}

// A boot does not ask for keys of volumes that are open already.
func TestGuestVolumeInUseIsNotAskedFor(t *testing.T) {
	r := openRoot(t)
	again := newRig(t)
	again.boot.Volumes, again.boot.Opener = r.boot.Volumes, unlock.Disks{}
	err := again.run(t)
	failed(t, unlock.CodeDevice, err)
	require.ErrorIs(t, err, luks.ErrBusy)
	assert.Empty(t, again.events)
}

// Without device-mapper neither.
func TestGuestWithoutDeviceMapper(t *testing.T) {
	require.NoError(t, os.Rename("/dev/mapper/control", "/dev/mapper/hidden"))
	defer func() { assert.NoError(t, os.Rename("/dev/mapper/hidden", "/dev/mapper/control")) }()
	r := newRig(t)
	volumes, err := unlock.Search{Clock: r.clock, Deadline: r.clock.now, Announce: r.boot.Announce}.Volumes(t.Context(),
		[]unlock.VolumeConfig{{Device: "/dev/vda", Name: "root"}})
	require.NoError(t, err)
	defer volumes.Close()
	r.boot.Volumes, r.boot.Opener = volumes, unlock.Disks{}
	err = r.run(t)
	failed(t, unlock.CodeDevice, err)
	require.ErrorContains(t, err, "dm_mod")
	assert.NotErrorIs(t, err, luks.ErrBusy)
	assert.Empty(t, r.events)
}

// Root may lock all of a process's memory.
func TestGuestMemoryIsLocked(t *testing.T) {
	assert.Contains(t, harden(t), "error <nil>")
}
