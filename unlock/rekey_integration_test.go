//go:build integration

package unlock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/test/process"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

const (
	rekeyVolume = "vol-a"
	rekeyResume = "00112233445566778899aabbccddeeff"
	person      = "a person's passphrase"
	recovery    = "a recovery key"
)

func text(s string) secret.Bytes { return secret.Copy([]byte(s)) }

// version is a version of the volume's secret.
func version(n uint32) unlock.SecretVersion {
	return unlock.SecretVersion{Number: n, Key: text(fmt.Sprintf("secret of version %d", n))}
}

// boundDisk is a volume on a plain file as an enrolment leaves it: a person's
// keyslot 0, ours 1, and 2 of the recovery key.
type boundDisk struct {
	t        *testing.T
	path     string
	run      unlock.RunDir
	identity [32]byte
}

func newDisk(t *testing.T, options ...string) *boundDisk {
	t.Helper()
	dir := t.TempDir()
	d := &boundDisk{t: t, path: filepath.Join(dir, "volume"), run: unlock.RunDir(filepath.Join(dir, "run"))}
	require.NoError(t, os.WriteFile(d.path, nil, 0o600))
	require.NoError(t, os.Truncate(d.path, 32<<20))
	d.cryptsetup(person, append([]string{"luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "2000", "--key-file", "-", d.path}, options...)...)
	d.bind(1, luks.PurposeBoot, 1, string(version(1).Key.Expose()))
	d.bind(2, luks.PurposeRecovery, 1, recovery)
	d.identity = identityOf(t, d.header())
	return d
}

func identityOf(t *testing.T, v *luks.Volume) [32]byte {
	t.Helper()
	sum, err := v.Identity().Digest()
	require.NoError(t, err)
	return sum
}

func (d *boundDisk) cryptsetup(stdin string, args ...string) {
	d.t.Helper()
	cmd := exec.Command("cryptsetup", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoError(d.t, err, "%v: %s", args, out)
}

// bind adds a keyslot and a token that is assigned to it.
func (d *boundDisk) bind(slot int, p luks.Purpose, number uint32, key string) {
	d.t.Helper()
	ctx := d.t.Context()
	require.NoError(d.t, luks.Cryptsetup{}.AddKeyslot(ctx, d.path, text(person), text(key), slot))
	d.announce(slot, p, number, slot)
}

// announce writes a token that is meant for a slot, and assigned to some.
func (d *boundDisk) announce(slot int, p luks.Purpose, number uint32, assigned ...int) {
	d.t.Helper()
	id, err := d.header().FreeToken()
	require.NoError(d.t, err)
	require.NoError(d.t, luks.Cryptsetup{}.ImportToken(d.t.Context(), d.path, id, luks.Token{
		Volume: rekeyVolume, Resume: rekeyResume, Purpose: p, Version: number, Slot: slot, Keyslots: assigned,
	}))
}

func (d *boundDisk) header() *luks.Volume {
	d.t.Helper()
	f, err := os.Open(d.path)
	require.NoError(d.t, err)
	d.t.Cleanup(func() { _ = f.Close() })
	h, err := luks.ReadDevice(f)
	require.NoError(d.t, err)
	v, err := h.Validate()
	require.NoError(d.t, err)
	return v
}

// opens tells whether a key opens a keyslot that a boot would try.
func (d *boundDisk) opens(key secret.Bytes) bool {
	d.t.Helper()
	v := d.header()
	volumeKey, err := v.UnsealAny(d.t.Context(), v.OwnSlots(rekeyVolume), key)
	volumeKey.Wipe()
	return err == nil
}

// rekey is from version 1 to version 2.
func (d *boundDisk) rekey(out io.Writer) *unlock.Rekeying {
	return &unlock.Rekeying{
		Device: d.path, Volume: rekeyVolume, Identity: d.identity, Old: version(1), New: version(2),
		Keep: func(context.Context, *io.SectionReader) error { return nil }, RunDir: d.run, Out: out,
	}
}

func (d *boundDisk) adds() string {
	d.t.Helper()
	var out bytes.Buffer
	_, err := d.rekey(&out).Add(d.t.Context())
	require.NoError(d.t, err, out.String())
	return out.String()
}

// requireSettled holds that a version is the only one, and that nothing of anybody
// else has changed.
func (d *boundDisk) requireSettled(number uint32) {
	d.t.Helper()
	v := d.header()
	require.Equal(d.t, d.identity, identityOf(d.t, v))
	var versions []uint32
	for _, token := range v.OwnTokens() {
		if token.Purpose == luks.PurposeBoot {
			versions = append(versions, token.Version)
			require.Len(d.t, token.Keyslots, 1)
		}
	}
	require.Equal(d.t, []uint32{number}, versions)
	require.True(d.t, d.opens(version(number).Key))
	for other := uint32(1); other < 5; other++ {
		if other != number {
			for _, s := range v.Inventory().Keyslots {
				require.ErrorIs(d.t, luks.Cryptsetup{}.TestKey(d.t.Context(), d.path, s.ID, version(other).Key), luks.ErrWrongKey, "version %d", other)
			}
		}
	}
	require.NoError(d.t, luks.Cryptsetup{}.TestKey(d.t.Context(), d.path, 0, text(person)))
	require.NoError(d.t, luks.Cryptsetup{}.TestKey(d.t.Context(), d.path, 2, text(recovery)))
	require.Equal(d.t, []int{2}, v.SlotsFor(rekeyVolume, luks.PurposeRecovery))
}

func (d *boundDisk) requireSlots(n int) {
	d.t.Helper()
	require.Len(d.t, d.header().Inventory().Keyslots, n)
}

func TestRekey(t *testing.T) {
	d := newDisk(t)
	before, err := os.ReadFile(d.path)
	require.NoError(t, err)
	r := d.rekey(io.Discard)
	var kept []byte
	r.Keep = func(_ context.Context, header *io.SectionReader) error {
		kept, err = io.ReadAll(header)
		return err
	}
	added, err := r.Add(t.Context())
	require.NoError(t, err)
	backup := filepath.Join(t.TempDir(), "backup")
	require.True(t, d.opens(version(1).Key))
	require.True(t, d.opens(version(2).Key))
	assert.Equal(t, 31, added.Slot)
	assert.Len(t, added.Report.Slots, 4)
	assert.Len(t, added.Report.Tokens, 3)
	assert.Equal(t, rekeyVolume, added.Report.ID)
	assert.Equal(t, before[:len(kept)], kept)
	assert.Equal(t, d.identity, identityOf(t, d.header()))

	done, err := r.Finish(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 31, done.Slot)
	assert.Len(t, done.Report.Slots, 3)
	d.requireSettled(2)
	again, err := r.Finish(t.Context())
	require.NoError(t, err)
	assert.Equal(t, done, again, "nothing is left to do")
	answered, err := r.Add(t.Context())
	require.NoError(t, err, "whoever did not hear of the commit begins anew")
	assert.Equal(t, done, answered)

	require.NoError(t, os.WriteFile(backup, kept, 0o600))
	d.cryptsetup("", "luksHeaderRestore", "-q", "--header-backup-file", backup, d.path)
	d.requireSettled(1)
}

func TestRekeyIsRolledBack(t *testing.T) {
	d := newDisk(t)
	d.adds()
	r := d.rekey(io.Discard)
	r.New = unlock.SecretVersion{}
	done, err := r.RollBack(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, done.Slot)
	d.requireSettled(1)
	d.requireSlots(3)
}

// One that the service committed and nobody finished is finished by the next.
func TestRekeyAfterOneThatWasNotFinished(t *testing.T) {
	d := newDisk(t)
	d.adds()
	r := d.rekey(io.Discard)
	r.Old, r.New = version(2), version(3)
	added, err := r.Add(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 30, added.Slot)
	require.False(t, d.opens(version(1).Key))
	require.True(t, d.opens(version(2).Key))
	_, err = r.Finish(t.Context())
	require.NoError(t, err)
	d.requireSettled(3)
	d.requireSlots(3)
}

// rekeyChild makes a child of the tests one part of a rekey.
const rekeyChild = "KEYWRIGHT_UNLOCK_REKEY"

// TestRekeyChild is that child.
func TestRekeyChild(t *testing.T) {
	words := strings.Fields(os.Getenv(rekeyChild))
	if len(words) == 0 {
		t.Skip("runs for other tests")
	}
	d := &boundDisk{t: t, path: words[1], run: unlock.RunDir(words[2])}
	d.identity = identityOf(t, d.header())
	r := d.rekey(os.Stdout)
	var err error
	switch words[0] {
	case "add":
		_, err = r.Add(t.Context())
	case "finish":
		_, err = r.Finish(t.Context())
	case "roll-back":
		_, err = r.RollBack(t.Context())
	}
	require.NoError(t, err)
}

func (d *boundDisk) killIn(part string, step unlock.Step, delay time.Duration) {
	d.t.Helper()
	self, err := os.Executable()
	require.NoError(d.t, err)
	cmd := exec.Command(self, "-test.run=^TestRekeyChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", rekeyChild, part, d.path, d.run))
	require.NoError(d.t, process.KillAtStep(cmd, string(step), 0, delay))
}

// cutEach runs a test for each step of a part, cut before it begins, and at some
// moments of those that write.
func cutEach(t *testing.T, steps []unlock.Step, test func(t *testing.T, step unlock.Step, delay time.Duration)) {
	writing := []unlock.Step{unlock.StepToken, unlock.StepKeyslot, unlock.StepAssign, unlock.StepKillOthers, unlock.StepForgetOthers}
	for _, step := range steps {
		delays := []time.Duration{0}
		if slices.Contains(writing, step) {
			delays = []time.Duration{0, 5 * time.Millisecond, 15 * time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond}
		}
		for _, delay := range delays {
			t.Run(fmt.Sprintf("%s-%v", step, delay), func(t *testing.T) { test(t, step, delay) })
		}
	}
}

// Wherever adding is cut, the old version opens; it is finished, or rolled back.
func TestRekeyCutAtEveryStepOfAdding(t *testing.T) {
	add, _ := unlock.RekeySteps()
	cutEach(t, add, func(t *testing.T, step unlock.Step, delay time.Duration) {
		d := newDisk(t)
		d.killIn("add", step, delay)
		require.True(t, d.opens(version(1).Key))
		image, err := os.ReadFile(d.path)
		require.NoError(t, err)

		d.adds()
		require.True(t, d.opens(version(1).Key))
		require.True(t, d.opens(version(2).Key))
		_, err = d.rekey(io.Discard).Finish(t.Context())
		require.NoError(t, err)
		d.requireSettled(2)
		d.requireSlots(3)

		require.NoError(t, os.WriteFile(d.path, image, 0o600))
		_, err = d.rekey(io.Discard).RollBack(t.Context())
		require.NoError(t, err)
		d.requireSettled(1)
		d.requireSlots(3)
	})
}

func TestRekeyCutAtEveryStepOfFinishing(t *testing.T) {
	_, finish := unlock.RekeySteps()
	cutEach(t, finish, func(t *testing.T, step unlock.Step, delay time.Duration) {
		d := newDisk(t)
		d.adds()
		d.killIn("finish", step, delay)
		require.True(t, d.opens(version(2).Key))
		_, err := d.rekey(io.Discard).Finish(t.Context())
		require.NoError(t, err)
		d.requireSettled(2)
		d.requireSlots(3)
	})
}

func TestRekeyCutAtEveryStepOfRollingBack(t *testing.T) {
	_, steps := unlock.RekeySteps()
	cutEach(t, steps, func(t *testing.T, step unlock.Step, delay time.Duration) {
		d := newDisk(t)
		d.adds()
		d.killIn("roll-back", step, delay)
		require.True(t, d.opens(version(1).Key))
		_, err := d.rekey(io.Discard).RollBack(t.Context())
		require.NoError(t, err)
		d.requireSettled(1)
		d.requireSlots(3)
	})
}

// What earlier runs, other programs and people left is understood.
func TestRekeyOfWhatItFinds(t *testing.T) {
	ours := func(d *boundDisk, slot int, key string) {
		require.NoError(t, luks.Cryptsetup{}.AddKeyslot(d.t.Context(), d.path, text(person), text(key), slot))
	}
	theirs := func(d *boundDisk, slot int) {
		d.cryptsetup(person+"\n"+"another's\nanother's\n", "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "2000", "--new-key-slot", fmt.Sprint(slot), d.path)
	}
	for name, c := range map[string]struct {
		find  func(d *boundDisk)
		slots int // in the end
		says  string
	}{
		"nothing":                     {func(*boundDisk) {}, 3, ""},
		"token without a slot":        {func(d *boundDisk) { d.announce(9, "", 2) }, 3, ""},
		"two tokens without a slot":   {func(d *boundDisk) { d.announce(9, "", 2); d.announce(10, "", 2) }, 3, ""},
		"slot that was not assigned":  {func(d *boundDisk) { d.announce(9, "", 2); ours(d, 9, "secret of version 2") }, 3, ""},
		"slot that does not open":     {func(d *boundDisk) { d.announce(9, "", 2); ours(d, 9, "no secret") }, 3, ""},
		"assigned slot does not open": {func(d *boundDisk) { d.bind(9, "", 2, "no secret") }, 3, ""},
		"two slots of one version": {func(d *boundDisk) {
			d.bind(9, "", 2, "secret of version 2")
			d.bind(10, "", 2, "secret of version 2")
		}, 3, ""},
		"two tokens of one slot":         {func(d *boundDisk) { d.bind(9, "", 2, "secret of version 2"); d.announce(9, "", 2, 9) }, 3, ""},
		"two tokens of the old slot":     {func(d *boundDisk) { d.announce(1, "", 1, 1) }, 3, ""},
		"withdrawn version":              {func(d *boundDisk) { d.bind(9, "", 3, "secret of version 3") }, 3, ""},
		"withdrawn, not assigned":        {func(d *boundDisk) { d.announce(9, "", 3); ours(d, 9, "secret of version 3") }, 3, ""},
		"withdrawn, number taken":        {func(d *boundDisk) { d.announce(9, "", 3); theirs(d, 9) }, 4, "note: keyslot 9 of"},
		"announced number taken":         {func(d *boundDisk) { d.announce(9, "", 2); theirs(d, 9) }, 4, "note: keyslot 9 of"},
		"somebody's slot":                {func(d *boundDisk) { theirs(d, 31) }, 4, ""},
		"slot of ours without any token": {func(d *boundDisk) { ours(d, 9, "unknown") }, 4, ""},
		"old slot is ignored":            {func(d *boundDisk) { d.cryptsetup("", "config", "--priority", "ignore", "--key-slot", "1", d.path) }, 3, ""},
		"somebody else's token of a slot": {func(d *boundDisk) {
			d.cryptsetup(`{"type":"x","keyslots":["0"]}`, "token", "import", "--json-file", "-", d.path)
		}, 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			c.find(d)
			image, err := os.ReadFile(d.path)
			require.NoError(t, err)
			foreign := strings.Contains(name, "taken") || strings.Contains(name, "somebody's slot")
			requireForeign := func() {
				if foreign {
					slot := map[bool]int{true: 31, false: 9}[name == "somebody's slot"]
					require.NoError(t, luks.Cryptsetup{}.TestKey(t.Context(), d.path, slot, text("another's")))
				}
			}
			priority := d.header().Inventory().Keyslots[1].Priority

			assert.Contains(t, d.adds(), c.says)
			done, err := d.rekey(io.Discard).Finish(t.Context())
			require.NoError(t, err)
			d.requireSettled(2)
			d.requireSlots(c.slots)
			requireForeign()
			for _, s := range done.Report.Slots {
				if s.ID == done.Slot {
					assert.Equal(t, priority, s.Priority)
				}
			}

			require.NoError(t, os.WriteFile(d.path, image, 0o600))
			var out bytes.Buffer
			_, err = d.rekey(&out).RollBack(t.Context())
			require.NoError(t, err)
			assert.Contains(t, out.String(), c.says)
			d.requireSettled(1)
			d.requireSlots(c.slots)
			requireForeign()
		})
	}
}

// What is refused is refused before anything is changed.
func TestRekeyThatIsRefused(t *testing.T) {
	both := []string{"add", "finish", "roll-back"}
	for name, c := range map[string]struct {
		find  func(d *boundDisk, r *unlock.Rekeying)
		parts []string
		want  string
	}{
		"wrong secrets":    {func(_ *boundDisk, r *unlock.Rekeying) { r.Old.Key, r.New.Key = text("x"), text("y") }, both, "opens no keyslot"},
		"no secrets":       {func(_ *boundDisk, r *unlock.Rekeying) { r.Old.Key, r.New.Key = text(""), text("") }, []string{"add", "roll-back"}, "a key of 0 bytes"},
		"another volume":   {func(_ *boundDisk, r *unlock.Rekeying) { r.Volume = "vol-b" }, both, "no token says"},
		"another identity": {func(_ *boundDisk, r *unlock.Rekeying) { r.Identity[0] ^= 1 }, both, "is not the volume that was enrolled"},
		"no device":        {func(d *boundDisk, r *unlock.Rekeying) { r.Device += "x" }, both, "no such file"},
		"versions swapped": {func(_ *boundDisk, r *unlock.Rekeying) { r.Old.Number = 2; r.New.Number = 1 }, []string{"add"}, "does not follow"},
		"later rekey": {func(d *boundDisk, _ *unlock.Rekeying) {
			d.bind(9, "", 2, "secret of version 2")
			d.announce(10, "", 3)
		}, []string{"finish"}, "a later rekey"},
		"not added": {func(*boundDisk, *unlock.Rekeying) {}, []string{"finish"}, "version 2 of the secret of volume/vol-a opens no keyslot"},
		"slot of two": {func(d *boundDisk, _ *unlock.Rekeying) {
			d.bind(9, "", 2, "secret of version 2")
			d.cryptsetup(`{"type":"x","keyslots":["1"]}`, "token", "import", "--json-file", "-", d.path)
		}, []string{"finish"}, "names keyslot 1, as our token"},
		"recovery key's slot": {func(d *boundDisk, _ *unlock.Rekeying) { d.announce(2, "", 3, 2) }, []string{"add", "roll-back"}, "names keyslot 2, as our token"},
		"no copy": {func(_ *boundDisk, r *unlock.Rekeying) {
			r.Keep = func(context.Context, *io.SectionReader) error { return errors.New("no space left") }
		}, []string{"add"}, "no space left"},
		"32 keyslots": {func(d *boundDisk, _ *unlock.Rekeying) {
			for slot := 3; slot < 32; slot++ {
				require.NoError(d.t, luks.Cryptsetup{}.AddKeyslot(d.t.Context(), d.path, text(person), text("x"), slot))
			}
		}, []string{"add"}, "all are taken"},
		"no room": {func(d *boundDisk, r *unlock.Rekeying) {
			small := newDisk(d.t, "--luks2-keyslots-size", "774144")
			d.path, r.Device, r.Identity = small.path, small.path, small.identity
		}, []string{"add"}, "no room for another keyslot"},
		"unreadable token": {func(d *boundDisk, _ *unlock.Rekeying) {
			d.cryptsetup(`{"type":"keywright","keyslots":[]}`, "token", "import", "--json-file", "-", d.path)
		}, both, "has our type but another form"},
	} {
		for _, part := range c.parts {
			t.Run(name+" "+part, func(t *testing.T) {
				d := newDisk(t)
				r := d.rekey(io.Discard)
				c.find(d, r)
				before, err := os.ReadFile(d.path)
				require.NoError(t, err)
				parts := map[string]func(context.Context) (unlock.Rekeyed, error){"add": r.Add, "finish": r.Finish, "roll-back": r.RollBack}
				_, err = parts[part](t.Context())
				require.ErrorContains(t, err, c.want)
				assert.NotContains(t, err.Error(), "secret of version")
				after, err := os.ReadFile(d.path)
				require.NoError(t, err)
				assert.True(t, bytes.Equal(before, after), "nothing was changed")
			})
		}
	}
}

// meddling returns a cryptsetup before whose luksAddKey another program takes the
// number of the keyslot, as many times as there are numbers.
func (d *boundDisk) meddling(slots ...int) luks.Cryptsetup {
	d.t.Helper()
	dir := d.t.TempDir()
	var queue strings.Builder
	for _, slot := range slots {
		fmt.Fprintln(&queue, slot)
	}
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "queue"), []byte(queue.String()), 0o600))
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "person"), []byte(person), 0o600))
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "another's"), []byte("another's"), 0o600))
	script := `#!/bin/sh
dir=$(dirname "$0")
slot=$(head -n 1 "$dir/queue")
if [ "$1" = luksAddKey ] && [ -n "$slot" ]; then
	sed -i 1d "$dir/queue"
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 2000 --key-file "$dir/person" --new-key-slot "$slot" ` + d.path + ` "$dir/another's" </dev/null
fi
exec cryptsetup "$@"
`
	path := filepath.Join(dir, "cryptsetup")
	require.NoError(d.t, os.WriteFile(path, []byte(script), 0o700))
	return luks.Cryptsetup{Path: path}
}

// Another program that changes the header at the same time costs a second try,
// and nothing of anybody.
func TestRekeyBesideAnotherProgram(t *testing.T) {
	d := newDisk(t)
	var out bytes.Buffer
	r := d.rekey(&out)
	r.Cryptsetup = d.meddling(31)
	added, err := r.Add(t.Context())
	require.NoError(t, err)
	assert.Contains(t, out.String(), "beginning again")
	assert.Equal(t, 30, added.Slot)
	r.Cryptsetup = d.meddling(29)
	_, err = r.Finish(t.Context())
	require.NoError(t, err)
	d.requireSettled(2)
	d.requireSlots(4)
	require.NoError(t, luks.Cryptsetup{}.TestKey(t.Context(), d.path, 31, text("another's")))

	d = newDisk(t)
	r = d.rekey(io.Discard)
	r.Cryptsetup = d.meddling(31, 30)
	_, err = r.Add(t.Context())
	require.ErrorIs(t, err, unlock.ErrHeaderBusy)
	require.True(t, d.opens(version(1).Key))
	d.adds()
	_, err = d.rekey(io.Discard).Finish(t.Context())
	require.NoError(t, err)
	d.requireSettled(2)
	d.requireSlots(5)
}

// A copy of a header that changes meanwhile is of neither state: it is made anew.
func TestRekeyKeepsAWholeHeader(t *testing.T) {
	d := newDisk(t)
	r, times := d.rekey(io.Discard), 0
	var kept []byte
	r.Keep = func(_ context.Context, header *io.SectionReader) (err error) {
		if times++; times == 1 {
			d.cryptsetup("", "config", "--label", "data", d.path)
		}
		kept, err = io.ReadAll(header)
		return err
	}
	_, err := r.Add(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 2, times)
	assert.Contains(t, string(kept[:4096]), "data")
	_, err = r.Add(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 2, times, "the header of before the first change was kept")
}

// A keyslot that no token is assigned to is not opened by a boot: that comes
// before the old one is killed.
func TestRekeyAssignsBeforeItKills(t *testing.T) {
	d := newDisk(t)
	d.announce(9, luks.PurposeBoot, 2)
	require.NoError(t, luks.Cryptsetup{}.AddKeyslot(t.Context(), d.path, text(person), version(2).Key, 9))
	require.False(t, d.opens(version(2).Key))
	d.killIn("finish", unlock.StepForgetOthers, 0)
	require.False(t, d.opens(version(1).Key))
	require.True(t, d.opens(version(2).Key))
}
