//go:build integration

package main

import (
	"crypto/aes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/xts"

	"keywright.dev/kms"
	"keywright.dev/kms/secret"
	"keywright.dev/test/process"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// Where the data of a volume stands that cryptsetup formats, and how much it is here.
const (
	dataOffset = 16 << 20
	dataSector = 4096
	dataSize   = 96 << 20
)

// reencryptable is a machine that runs with a volume whose data is known, and which a
// person opens too.
type reencryptable struct {
	*guest
	s         *service
	path, id  string
	sum       [32]byte
	identity  []byte
	keyDigest string
}

func newReencryptable(t *testing.T) *reencryptable {
	t.Helper()
	s := startService(t)
	r := &reencryptable{guest: unlocked(t, s, 1), s: s}
	r.path = r.volumes[0]
	v := s.volumeOn(t, r.path)
	r.id, r.identity, r.keyDigest = v.ID, v.Identity, header(t, r.path).VolumeKeyDigest()
	require.NoError(t, os.Truncate(r.path, dataOffset+dataSize))
	text := make([]byte, dataSize)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(text) // never fails
	r.sum = sha256.Sum256(text)
	c := r.cipher(passphrase)
	for at := 0; at < len(text); at += dataSector {
		c.Encrypt(text[at:at+dataSector], text[at:at+dataSector], uint64(at/512))
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(text, dataOffset)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return r
}

// cipher is what dm-crypt makes of the volume key, which a passphrase opens.
func (r *reencryptable) cipher(passphrase string) *xts.Cipher {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "key")
	cryptsetup(r.t, passphrase, "luksDump", "-q", "--dump-volume-key", "--volume-key-file", file, "--key-file", "-", r.path)
	key, err := os.ReadFile(file)
	require.NoError(r.t, err)
	c, err := xts.NewCipher(aes.NewCipher, key)
	require.NoError(r.t, err)
	return c
}

func (r *reencryptable) order(lose bool) {
	r.t.Helper()
	v := r.s.volumeOn(r.t, r.path)
	_, err := r.s.OrderReencrypt(r.t.Context(), operator(), v, "a test")
	require.NoError(r.t, err)
	if lose {
		r.agree()
	}
}

func (r *reencryptable) agree() {
	r.t.Helper()
	v, err := r.s.store.FindVolumes(r.t.Context(), r.id, 1)
	require.NoError(r.t, err)
	_, err = r.s.LoseKeyslots(r.t.Context(), operator(), &v[0], "she knows")
	require.NoError(r.t, err)
}

// requireReencrypted holds that the data is the same under another key, that the header
// is a plain one with the two keyslots that stay, and that the service knows.
func (r *reencryptable) requireReencrypted() {
	r.t.Helper()
	require.Empty(r.t, r.s.orders(r.t))
	v, h := r.s.volumeOn(r.t, r.path), header(r.t, r.path)
	require.False(r.t, h.Header().Reencrypting())
	require.NotEqual(r.t, r.identity, v.Identity)
	identity, err := h.Identity().Digest()
	require.NoError(r.t, err)
	require.Equal(r.t, identity[:], v.Identity)
	require.Equal(r.t, h.VolumeKeyDigest(), fmt.Sprintf("%x", v.VolumeKeyDigest))
	require.NotEqual(r.t, r.keyDigest, h.VolumeKeyDigest())
	require.False(r.t, v.Reencrypted.IsZero())
	require.False(r.t, v.Foreign)
	require.Len(r.t, h.Inventory().Keyslots, 2)
	require.Equal(r.t, []uint32{2}, versionsOn(r.t, r.path))
	require.Len(r.t, h.SlotsFor(r.id, luks.PurposeRecovery), 1)

	key, err := r.s.DiscloseRecoveryKey(r.t.Context(), operator(), v, 0)
	require.NoError(r.t, err)
	image, err := os.ReadFile(r.path)
	require.NoError(r.t, err)
	data, c := image[dataOffset:], r.cipher(string(key.Expose()))
	for at := 0; at < len(data); at += dataSector {
		c.Decrypt(data[at:at+dataSector], data[at:at+dataSector], uint64(at/512))
	}
	require.Equal(r.t, r.sum, sha256.Sum256(data), "the data is the same")
}

// The agent carries out what is ordered, once somebody agreed to the loss of the
// person's keyslot; the machine boots from what it became. People open images of the disk
// from before with its recovery key of then.
func TestAgentReencryptsWhileTheMachineRuns(t *testing.T) {
	r := newReencryptable(t)
	before, err := os.ReadFile(r.path)
	require.NoError(t, err)
	image := r.guest.path("image")
	require.NoError(t, os.WriteFile(image, before, 0o600))
	a := r.startAgent([]string{r.s.url}, r.s.pin())
	r.order(false)
	a.await("is rekeyed: version 2 opens it")
	require.Eventually(t, func() bool { return r.s.orders(t)[0].Waits() }, agentPatience, agentPoll)
	assert.Equal(t, 0, r.s.orders(t)[0].Lost[0].ID, "the person's keyslot")
	assert.NotContains(t, a.said.String(), "step: kill-lost-keyslots")
	r.agree()
	r.s.awaitNoOrders(t)
	a.await("is reencrypted")
	a.end()
	r.requireReencrypted()
	key, err := r.s.DiscloseRecoveryKey(t.Context(), operator(), r.s.volumeOn(t, r.path), 1)
	require.NoError(t, err)
	require.NoError(t, luks.Cryptsetup{}.TestAnyKey(t.Context(), image, key))
	require.ErrorIs(t, luks.Cryptsetup{}.TestAnyKey(t.Context(), r.path, key), luks.ErrWrongKey)
	r.boot("ovmf-uki")
	require.NoError(t, r.bootHere(r.s).err)
	alarmed, err := r.s.store.AlarmedVolumes(t.Context(), kms.AlarmForeign, "", 9)
	require.NoError(t, err)
	assert.Empty(t, alarmed)
}

// reencryptionCuts are moments at which an agent is killed: before each step, and in
// the middle of those that write.
func reencryptionCuts() (list []cut) {
	for _, step := range unlock.ReencryptSteps() {
		if step != unlock.StepRead {
			list = append(list, cut{step, 0, 0})
		}
	}
	list = append(list, cut{unlock.StepReportReencrypted, 0, 0})
	for _, ms := range []time.Duration{40, 80, 120, 200, 300} {
		list = append(list, cut{unlock.StepBeginReencryption, 0, ms * time.Millisecond}, cut{unlock.StepReencrypt, 0, ms * time.Millisecond})
	}
	return list
}

// Wherever an agent is killed, the boot that follows opens the volume, and the next
// agent ends what was begun: no byte is lost.
func TestReencryptionThatIsKilledGoesOnAfterABoot(t *testing.T) {
	for _, c := range reencryptionCuts() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			r := newReencryptable(t)
			r.order(true)
			nth := c.nth
			if c.step == unlock.StepClean || c.step == unlock.StepCheck {
				nth += 2 // the rekey has them too
			}
			cmd := r.child("agent", "--config", r.bootConfig([]string{r.s.url}, r.s.pin()))
			require.NoError(t, process.KillAtStep(cmd, string(c.step), nth, c.delay))

			r.boot("ovmf-uki")
			booted := r.bootHere(r.s)
			require.NoError(t, booted.err, booted.lines)
			assert.Contains(t, booted.events, "open volume0")
			a := r.startAgent([]string{r.s.url}, r.s.pin())
			r.s.awaitNoOrders(t)
			a.end()
			r.requireReencrypted()
		})
	}
}

// TestAttack12ReencryptionThatNobodyOrdered puts a volume under reencryption with its own
// keys, all of which root may have: its boot is refused, and opens nothing.
func TestAttack12ReencryptionThatNobodyOrdered(t *testing.T) {
	r := newReencryptable(t)
	r.boot("ovmf-uki")
	booted := r.bootHere(r.s)
	require.NoError(t, booted.err)
	recovery, err := r.s.DiscloseRecoveryKey(t.Context(), operator(), r.s.volumeOn(t, r.path), 0)
	require.NoError(t, err)
	h := header(t, r.path)
	keys := []luks.SlotKey{
		{Slot: 0, Key: secret.Copy([]byte(passphrase))},
		{Slot: h.OwnSlots(r.id)[0], Key: secret.Copy(booted.keys[0])},
		{Slot: h.SlotsFor(r.id, luks.PurposeRecovery)[0], Key: recovery},
	}
	require.NoError(t, luks.Cryptsetup{}.BeginReencryption(t.Context(), r.path, keys))
	r.boot("ovmf-uki")
	booted = r.bootHere(r.s, "--deadline", "1s")
	r.refusedWith(booted, "1220")
	assert.Empty(t, booted.keys)
}
