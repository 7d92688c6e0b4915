//go:build integration

package unlock_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// cutWhenAll kills cryptsetup a moment after all data is under the new volume key.
func (d *filledDisk) cutWhenAll(delay time.Duration) {
	d.t.Helper()
	keys := []luks.SlotKey{{Slot: d.header().OwnSlots(rekeyVolume)[0], Key: version(1).Key}, {Slot: 2, Key: text(recovery)}}
	require.NoError(d.t, luks.Cryptsetup{}.KillSlot(d.t.Context(), d.path, 0, version(1).Key))
	require.NoError(d.t, luks.Cryptsetup{}.BeginReencryption(d.t.Context(), d.path, keys))
	cmd := exec.CommandContext(d.t.Context(), "cryptsetup", "reencrypt", "-q", "--resume-only", "--force-offline-reencrypt", "--hotzone-size", "8M", "--key-file", "-", d.path)
	cmd.Stdin = strings.NewReader(string(version(1).Key.Expose()))
	require.NoError(d.t, cmd.Start())
	require.Eventually(d.t, func() bool {
		f, err := os.Open(d.path)
		require.NoError(d.t, err)
		defer f.Close()
		h, err := luks.ReadDevice(f)
		if err != nil || !h.Reencrypting() {
			return err == nil
		}
		under, err := h.ValidateUnder()
		require.NoError(d.t, err)
		return under.All()
	}, time.Minute, time.Millisecond)
	time.Sleep(delay)
	_ = cmd.Process.Kill() // it may have come to its end
	_ = cmd.Wait()
}

// Between the last byte and the header cryptsetup kills the keyslots of the old volume
// key, without which it does not go on. A boot opens the volume all the same, and the
// next run ends it.
func TestReencryptionCutBehindItsLastByte(t *testing.T) {
	for _, delay := range []time.Duration{0, 5, 10, 15, 20, 30, 50, 80, 120} {
		delay *= time.Millisecond
		t.Run(delay.String(), func(t *testing.T) {
			d := newFilledDisk(t, 4<<20)
			d.cutWhenAll(delay)
			search := unlock.Search{Clock: unlock.SystemClock{}}
			volumes, err := search.Volumes(t.Context(), []unlock.VolumeConfig{{Device: d.path, Name: "data"}})
			require.NoError(t, err)
			defer volumes.Close()
			volumeKey, err := unlock.Unseal(t.Context(), volumes[0], version(1).Key)
			require.NoError(t, err)
			require.Equal(t, 64, volumeKey.Len(), "a volume key, and not what cryptsetup opens it with")
			stuck := exec.CommandContext(t.Context(), "cryptsetup", "open", "--test-passphrase", "--key-file", "-", d.path)
			stuck.Stdin = strings.NewReader(string(version(1).Key.Expose()))
			t.Logf("under reencryption: %v; cryptsetup: %v", volumes[0].Under != nil, stuck.Run())

			r := d.reencrypting(io.Discard)
			r.Begun = true
			done, err := r.Run(t.Context())
			require.NoError(t, err)
			d.requireReencrypted(done)
		})
	}
}

// cutInTheLastPart kills cryptsetup while it reencrypts all of the data as one part.
func (d *filledDisk) cutInTheLastPart() {
	d.t.Helper()
	keys := []luks.SlotKey{{Slot: d.header().OwnSlots(rekeyVolume)[0], Key: version(1).Key}, {Slot: 2, Key: text(recovery)}}
	require.NoError(d.t, luks.Cryptsetup{}.KillSlot(d.t.Context(), d.path, 0, version(1).Key))
	require.NoError(d.t, luks.Cryptsetup{}.BeginReencryption(d.t.Context(), d.path, keys))
	cmd := exec.CommandContext(d.t.Context(), "cryptsetup", "reencrypt", "-q", "--resume-only", "--force-offline-reencrypt", "--hotzone-size", "1G", "--key-file", "-", d.path)
	cmd.Stdin = strings.NewReader(string(version(1).Key.Expose()))
	require.NoError(d.t, cmd.Start())
	header := make([]byte, 16<<10)
	require.Eventually(d.t, func() bool {
		f, err := os.Open(d.path)
		require.NoError(d.t, err)
		defer f.Close()
		_, err = f.ReadAt(header, 0)
		require.NoError(d.t, err)
		return bytes.Contains(header, []byte("in-reencryption"))
	}, time.Minute, time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// A boot has cryptsetup recover the volume, which ends the reencryption where the last
// part is what was cut.
func TestReencryptionCutInItsLastPart(t *testing.T) {
	d := newFilledDisk(t, 32<<20)
	d.cutInTheLastPart()
	search := unlock.Search{Clock: unlock.SystemClock{}}
	volumes, err := search.Volumes(t.Context(), []unlock.VolumeConfig{{Device: d.path, Name: "data"}})
	require.NoError(t, err)
	defer volumes.Close()
	require.NotNil(t, volumes[0].Under)
	require.NoError(t, unlock.AfterRecovery(volumes[0]))
	require.NoError(t, luks.Cryptsetup{}.RecoverReencryption(t.Context(), d.path, version(1).Key))
	require.NoError(t, unlock.AfterRecovery(volumes[0]))

	r := d.reencrypting(io.Discard)
	r.Begun = true
	done, err := r.Run(t.Context())
	require.NoError(t, err)
	d.requireReencrypted(done)

	now := d.header()
	keys := []luks.SlotKey{{Slot: now.OwnSlots(rekeyVolume)[0], Key: version(1).Key}, {Slot: now.SlotsFor(rekeyVolume, luks.PurposeRecovery)[0], Key: text(recovery)}}
	require.NoError(t, luks.Cryptsetup{}.BeginReencryption(t.Context(), d.path, keys))
	require.ErrorContains(t, unlock.AfterRecovery(volumes[0]), "is another", "another reencryption")
	require.NoError(t, luks.Cryptsetup{}.ResumeReencryption(t.Context(), d.path, version(1).Key, luks.Resumption{Closed: true}))
	require.ErrorContains(t, unlock.AfterRecovery(volumes[0]), "is another", "what that made of it")
}
