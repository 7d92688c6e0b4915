//go:build integration

package unlock_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/xts"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

const (
	dataOffset = 16 << 20
	dataSector = 4096
)

// filledDisk is a volume whose data is known: the person agreed to lose his slot.
type filledDisk struct {
	*boundDisk
	uuid, keyDigest string
	sum             [32]byte
	lose            []exchange.LUKSSlot
}

func newFilledDisk(t *testing.T, data int) *filledDisk {
	t.Helper()
	d := &filledDisk{boundDisk: newDisk(t, "--sector-size", fmt.Sprint(dataSector))}
	require.NoError(t, os.Truncate(d.path, dataOffset+int64(data)))
	v := d.header()
	d.uuid, d.keyDigest = v.Header().UUID, v.VolumeKeyDigest()
	text := make([]byte, data)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(text) // never fails
	d.sum = sha256.Sum256(text)
	c := d.cipher(v)
	for at := 0; at < data; at += dataSector {
		c.Encrypt(text[at:at+dataSector], text[at:at+dataSector], uint64(at/512))
	}
	f, err := os.OpenFile(d.path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(text, dataOffset)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	d.lose, err = d.reencrypting(io.Discard).Lost(t.Context())
	require.NoError(t, err)
	return d
}

// cipher is what dm-crypt makes of the volume key.
func (d *filledDisk) cipher(v *luks.Volume) *xts.Cipher {
	d.t.Helper()
	volumeKey, err := v.UnsealAny(d.t.Context(), v.OwnSlots(rekeyVolume), version(1).Key)
	require.NoError(d.t, err)
	defer volumeKey.Wipe()
	c, err := xts.NewCipher(aes.NewCipher, volumeKey.Expose())
	require.NoError(d.t, err)
	return c
}

func (d *filledDisk) reencrypting(out io.Writer) *unlock.Reencrypting {
	return &unlock.Reencrypting{
		Device: d.path, Volume: rekeyVolume, UUID: d.uuid, Identity: d.identity, Secret: version(1), Recovery: unlock.SecretVersion{Number: 1, Key: text(recovery)},
		Lose: d.lose, Closed: true, RunDir: d.run, Out: out,
	}
}

// requireReencrypted holds that the data is the same under another key, and that
// the header is as a boot wants it.
func (d *filledDisk) requireReencrypted(done unlock.Reencrypted) {
	d.t.Helper()
	v := d.header()
	require.False(d.t, v.Header().Reencrypting())
	require.Equal(d.t, identityOf(d.t, v), done.Identity)
	require.NotEqual(d.t, d.identity, done.Identity)
	require.NotEqual(d.t, d.keyDigest, v.VolumeKeyDigest())
	require.Len(d.t, v.Inventory().Keyslots, 2)
	require.Len(d.t, done.Report.Slots, 2)
	recoverySlots := v.SlotsFor(rekeyVolume, luks.PurposeRecovery)
	require.Len(d.t, recoverySlots, 1)
	require.NoError(d.t, luks.Cryptsetup{}.TestKey(d.t.Context(), d.path, recoverySlots[0], text(recovery)))
	require.NoError(d.t, v.Openable(v.OwnSlots(rekeyVolume)[0]))

	image, err := os.ReadFile(d.path)
	require.NoError(d.t, err)
	data, c := image[dataOffset:], d.cipher(v)
	for at := 0; at < len(data); at += dataSector {
		c.Decrypt(data[at:at+dataSector], data[at:at+dataSector], uint64(at/512))
	}
	require.Equal(d.t, d.sum, sha256.Sum256(data), "the data is the same")
}

func TestReencrypt(t *testing.T) {
	d := newFilledDisk(t, 16<<20)
	require.Len(t, d.lose, 1)
	assert.Equal(t, 0, d.lose[0].ID)
	var last luks.Progress
	r := d.reencrypting(io.Discard)
	r.Progress = func(p luks.Progress) { last = p }
	done, err := r.Run(t.Context())
	require.NoError(t, err)
	d.requireReencrypted(done)
	assert.EqualValues(t, 16<<20, last.Done)
	assert.EqualValues(t, 16<<20, last.Total)

	_, err = r.Run(t.Context())
	require.ErrorContains(t, err, "is not the volume that was enrolled")
	r.Begun = true
	again, err := r.Run(t.Context())
	require.NoError(t, err, "whoever did not hear that it has ended runs it again")
	assert.Equal(t, done, again)

	d.identity = done.Identity
	added, err := d.rekey(io.Discard).Add(t.Context())
	require.NoError(t, err, "it can be rekeyed")
	assert.Equal(t, 31, added.Slot)
}

func TestReencryptionThatIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		find func(d *filledDisk, r *unlock.Reencrypting)
		want string
	}{
		"nobody agreed to a loss": {func(_ *filledDisk, r *unlock.Reencrypting) { r.Lose = nil }, "would lose 0 (pbkdf2, "},
		"another slot by now": {func(d *filledDisk, _ *unlock.Reencrypting) {
			d.cryptsetup(person, "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "2000", "--key-file", "-", "--new-key-slot", "5", d.path, "/etc/hostname")
		}, "would lose 5 (pbkdf2, "},
		"slot made anew":  {func(_ *filledDisk, r *unlock.Reencrypting) { r.Lose = []exchange.LUKSSlot{{ID: 0, Mark: "00000000"}} }, "would lose 0 (pbkdf2, "},
		"wrong secret":    {func(_ *filledDisk, r *unlock.Reencrypting) { r.Secret.Key = text("x") }, "does not open"},
		"no recovery":     {func(_ *filledDisk, r *unlock.Reencrypting) { r.Recovery.Key = secret.Bytes{} }, "keyslots [2] of recovery keys"},
		"recovery as two": {func(_ *filledDisk, r *unlock.Reencrypting) { r.Recovery.Key = text("a\nb") }, "rekey the volume first"},
		"line feed":       {func(_ *filledDisk, r *unlock.Reencrypting) { r.Secret.Key = text("a\nb") }, "rekey the volume first"},
		"too long":        {func(_ *filledDisk, r *unlock.Reencrypting) { r.Secret.Key = text(strings.Repeat("x", 513)) }, "rekey the volume first"},
		"rekey under way": {func(d *filledDisk, _ *unlock.Reencrypting) { d.adds() }, "finish the rekey first"},
		"other version":   {func(_ *filledDisk, r *unlock.Reencrypting) { r.Secret.Number = 2 }, "finish the rekey first"},
		"another volume":  {func(_ *filledDisk, r *unlock.Reencrypting) { r.Identity[0] ^= 1 }, "is not the volume that was enrolled"},
		"another UUID":    {func(_ *filledDisk, r *unlock.Reencrypting) { r.UUID = "x" }, "has the LUKS UUID"},
		"no device":       {func(_ *filledDisk, r *unlock.Reencrypting) { r.Device += "x" }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newFilledDisk(t, 1<<20)
			r := d.reencrypting(io.Discard)
			c.find(d, r)
			before, err := os.ReadFile(d.path)
			require.NoError(t, err)
			_, err = r.Run(t.Context())
			require.ErrorContains(t, err, c.want)
			after, err := os.ReadFile(d.path)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(before, after), "nothing was changed")
		})
	}
}

// A keyslot that somebody adds after it was looked which ones are lost, while the service
// is told, stays.
func TestReencryptionLosesNoKeyslotThatTurnsUpLate(t *testing.T) {
	d := newFilledDisk(t, 1<<20)
	r := d.reencrypting(io.Discard)
	r.Tell = func(_ context.Context, stage exchange.Stage, _ exchange.Volume, _ exchange.VolumeReport) error {
		require.Equal(t, exchange.StageReady, stage)
		d.cryptsetup(person, "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "2000", "--key-file", "-", "--new-key-slot", "5", d.path, "/etc/hostname")
		return nil
	}
	_, err := r.Run(t.Context())
	require.ErrorIs(t, err, unlock.ErrLoses)
	require.ErrorContains(t, err, "would lose 5 (pbkdf2, ")
	require.Len(t, d.header().Inventory().Keyslots, 4, "those that somebody agreed to lose are there, too")
}

// stepMidway is announced by the child once some of the data is under the new key.
const stepMidway unlock.Step = "midway"

// carryOutReencryption is a child of the tests that reencrypts.
func carryOutReencryption(words []string) error {
	bound, v, err := diskOf(words[0], words[1])
	if err != nil {
		return err
	}
	d := &filledDisk{boundDisk: bound, uuid: v.Header().UUID}
	if d.lose, err = d.reencrypting(io.Discard).Lost(context.Background()); err != nil {
		return err
	}
	go d.midway(func() { fmt.Printf("step: %s\n", stepMidway) })
	_, err = d.reencrypting(os.Stdout).Run(context.Background())
	return err
}

// midway calls then when the header has been written for the third time since the
// reencryption began.
func (d *filledDisk) midway(then func()) {
	begun, last := 0, uint64(0)
	for begun < 3 {
		f, err := os.Open(d.path)
		if err != nil {
			return
		}
		h, err := luks.ReadDevice(f)
		_ = f.Close()
		if err == nil && h.Reencrypting() && h.SequenceID != last {
			begun, last = begun+1, h.SequenceID
		}
		time.Sleep(time.Millisecond)
	}
	then()
}

// One that is asked to end does so where it needs no recovery.
func TestReencryptionThatIsStopped(t *testing.T) {
	d := newFilledDisk(t, 128<<20)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go d.midway(stop)
	_, err := d.reencrypting(io.Discard).Run(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, d.requireBootable())
	require.NoError(t, luks.Cryptsetup{}.ResumeReencryption(t.Context(), d.path, version(1).Key, luks.Resumption{Closed: true}), "nothing has to be recovered")
	r := d.reencrypting(io.Discard)
	r.Begun = true
	done, err := r.Run(t.Context())
	require.NoError(t, err)
	d.requireReencrypted(done)
}

// Wherever it is cut, the next run ends it, and no byte is lost. Before it began a
// boot opens the volume as if nothing had been.
func TestReencryptionCutAtEveryStep(t *testing.T) {
	ms := time.Millisecond
	delays := map[unlock.Step][]time.Duration{
		unlock.StepKillLost:          {20 * ms},
		unlock.StepBeginReencryption: {30 * ms, 50 * ms, 70 * ms, 80 * ms, 90 * ms, 100 * ms, 110 * ms, 130 * ms, 160 * ms, 200 * ms, 250 * ms},
		unlock.StepReencrypt:         {50 * ms, 200 * ms},
		stepMidway:                   {30 * ms, 100 * ms},
	}
	for _, step := range append(unlock.ReencryptSteps(), stepMidway) {
		for _, delay := range append([]time.Duration{0}, delays[step]...) {
			t.Run(fmt.Sprintf("%s-%v", step, delay), func(t *testing.T) {
				data := 4 << 20
				if step == stepMidway {
					data = 128 << 20
				}
				d := newFilledDisk(t, data)
				d.killIn(reencryptChild, "", step, delay)
				r := d.reencrypting(io.Discard)
				if d.requireBootable() {
					r.Begun = true
				} else if step == stepMidway {
					t.Log("it had ended by then")
				}
				d.requireReencrypted(d.runOnceFree(r))
			})
		}
	}
}

// runOnceFree runs it once the lock is free: of a run that was killed as it began a
// program, the child holds it for a moment still.
func (d *filledDisk) runOnceFree(r *unlock.Reencrypting) (done unlock.Reencrypted) {
	d.t.Helper()
	require.Eventually(d.t, func() bool {
		var err error
		if done, err = r.Run(d.t.Context()); err != nil {
			require.ErrorContains(d.t, err, "another keywright-unlock is changing")
		}
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	return done
}

// The recovery key before is taken away, once whoever is told knows of the new one; and
// a keyslot that was announced for it, but is another's, stays.
func TestReencryptionWithAFreshRecoveryKey(t *testing.T) {
	for name, fails := range map[string]exchange.Stage{"goes through": "", "not ready": exchange.StageReady, "not begun": exchange.StageBegun} {
		t.Run(name, func(t *testing.T) {
			d := newFilledDisk(t, 1<<20)
			const fresh = "another recovery key"
			var told []exchange.Stage
			r := d.reencrypting(io.Discard)
			r.Recovery = unlock.SecretVersion{Number: 2, Key: text(fresh)}
			r.Tell = func(_ context.Context, stage exchange.Stage, v exchange.Volume, about exchange.VolumeReport) error {
				told = append(told, stage)
				switch stage {
				case exchange.StageReady:
					assert.Equal(t, d.identity, v.Identity)
					require.NoError(t, luks.Cryptsetup{}.TestKey(t.Context(), d.path, 2, text(recovery)), "nothing is gone yet")
					assert.Len(t, about.Slots, 4)
				case exchange.StageBegun:
					assert.Equal(t, exchange.UnderReencryption(d.identity, [32]byte(about.Becomes)), v.Identity)
				}
				if stage == fails {
					return io.ErrUnexpectedEOF
				}
				return nil
			}
			done, err := r.Run(t.Context())
			if fails != "" {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				assert.Equal(t, fails == exchange.StageBegun, d.requireBootable())
				r.Tell = nil
				done, err = r.Run(t.Context())
			}
			require.NoError(t, err)
			assert.Contains(t, told, exchange.StageReady)
			v := d.header()
			slots := v.SlotsFor(rekeyVolume, luks.PurposeRecovery)
			require.Len(t, slots, 1)
			require.NoError(t, luks.Cryptsetup{}.TestKey(t.Context(), d.path, slots[0], text(fresh)))
			require.ErrorIs(t, luks.Cryptsetup{}.TestAnyKey(t.Context(), d.path, text(recovery)), luks.ErrWrongKey)
			assert.Len(t, done.Report.Slots, 2)
		})
	}
}

// What is faster than its rate pauses, and ends all the same.
func TestReencryptionAtARate(t *testing.T) {
	// Progress is said once a second, and a disk may be quick.
	for size := int64(512 << 20); size <= 4<<30; size *= 2 {
		if reencryptAtARate(t, size) {
			return
		}
	}
	require.Fail(t, "no reencryption took so long that it was paused")
}

// reencryptAtARate tells whether it took long enough to be paused. Most of the data are
// holes, which are quickly made.
func reencryptAtARate(t *testing.T, size int64) bool {
	t.Helper()
	d := newFilledDisk(t, 1<<20)
	require.NoError(t, os.Truncate(d.path, dataOffset+size))
	clock := &countingClock{}
	r := d.reencrypting(io.Discard)
	r.Rate, r.Clock = 1<<20, clock
	lines := 0
	r.Progress = func(luks.Progress) { lines++ }
	done, err := r.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, identityOf(t, d.header()), done.Identity)
	assert.NotEqual(t, d.identity, done.Identity)
	if lines < 2 {
		return false
	}
	assert.GreaterOrEqual(t, clock.slept, 20*time.Second, "so much was done before it was seen for the first time")
	return true
}

// countingClock goes on by what is slept alone.
type countingClock struct {
	mu    sync.Mutex
	slept time.Duration
}

func (c *countingClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Unix(0, 0).Add(c.slept)
}

func (c *countingClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slept += d
	return ctx.Err()
}

// requireBootable holds that a boot opens the volume, or hands it over because it
// is under reencryption. It returns whether that has begun.
func (d *filledDisk) requireBootable() (begun bool) {
	d.t.Helper()
	f, err := os.Open(d.path)
	require.NoError(d.t, err)
	defer f.Close()
	h, err := luks.ReadDevice(f)
	require.NoError(d.t, err)
	if h.Reencrypting() {
		d.cryptsetup(string(version(1).Key.Expose()), "open", "--test-passphrase", "--key-file", "-", d.path)
		return true
	}
	v, err := h.Validate()
	require.NoError(d.t, err)
	require.True(d.t, d.opens(version(1).Key))
	d.t.Logf("%d keyslots are left over", len(v.Leftover()))
	return identityOf(d.t, v) != d.identity
}

// No key stands in an argument, an environment or a file, whatever runs.
func TestKeysOfARekeyGoThroughPipesAlone(t *testing.T) {
	d := newFilledDisk(t, 1<<20)
	dir := t.TempDir()
	recording := filepath.Join(dir, "cryptsetup")
	script := "#!/bin/sh\n{ echo \"run: $*\"; cat /proc/$$/environ; echo; } >>" + dir + "/runs\nexec cryptsetup \"$@\"\n"
	require.NoError(t, os.WriteFile(recording, []byte(script), 0o700))
	rekey := d.rekey(io.Discard)
	rekey.Cryptsetup.Path = recording
	_, err := rekey.Add(t.Context())
	require.NoError(t, err)
	_, err = rekey.RollBack(t.Context())
	require.NoError(t, err)
	r := d.reencrypting(io.Discard)
	r.Cryptsetup.Path = recording
	_, err = r.Run(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.Cryptsetup.RecoverReencryption(t.Context(), d.path, version(1).Key))

	runs, err := os.ReadFile(filepath.Join(dir, "runs"))
	require.NoError(t, err)
	for _, action := range []string{"luksAddKey", "luksKillSlot", "token import", "open --test-passphrase", "reencrypt --batch-mode --init-only", "reencrypt --batch-mode --resume-only", "repair"} {
		assert.Contains(t, string(runs), "run: "+action)
	}
	image, err := os.ReadFile(d.path)
	require.NoError(t, err)
	for _, key := range []string{"secret of version", recovery} {
		assert.NotContains(t, string(runs), key)
		assert.False(t, bytes.Contains(image, []byte(key)))
	}
}
