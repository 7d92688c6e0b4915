package unlock

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

// halfRekeyed is a header as a rekey from version 1 to 2 left it that was cut
// before its token was assigned. A person took the number that version 3 announced.
func halfRekeyed(t *testing.T) (*Rekeying, *target, *bytes.Buffer) {
	t.Helper()
	out := new(bytes.Buffer)
	r := &Rekeying{Volume: "vol-a", Old: SecretVersion{Number: 1}, New: SecretVersion{Number: 2}, Out: out}
	return r, readTarget(t, "rekeying"), out
}

func TestRekeyKillsNothingThatIsNotOurs(t *testing.T) {
	r, v, out := halfRekeyed(t)
	for slot, ours := range map[int]bool{0: false, 1: false, 2: true, 31: true} {
		assert.Equal(t, ours, r.ours(v, slot), slot)
	}
	want := [][]int{{2}, {31}, {}}
	for i, token := range r.tokens(v) {
		slots, err := r.doomed(v, token)
		require.NoError(t, err)
		assert.ElementsMatch(t, want[i], slots, "version %d", token.Version)
	}
	assert.Contains(t, out.String(), "keyslot 1 of "+v.path+" stays: token 2 announced it")

	r.stays = staying{tokens: []int{0}, slots: []int{2}}
	slots, err := r.doomed(v, r.tokens(v)[0])
	require.NoError(t, err)
	assert.Empty(t, slots, "what stays is not killed for another token of it")
	assert.Len(t, r.passing(v, everyToken), 2)
}

func TestRekeyOfAnotherVolumeSeesNoTokens(t *testing.T) {
	r, v, _ := halfRekeyed(t)
	r.Volume = "vol-b"
	assert.Empty(t, r.tokens(v))
	assert.False(t, r.ours(v, 2))
}

func TestRekeyGoesOnWithATokenOnlyWhereItsNumberIsFree(t *testing.T) {
	r, v, _ := halfRekeyed(t)
	assert.Empty(t, r.waiting(v), "its keyslot is there, and did not open")
	r.New.Number = 3
	assert.Empty(t, r.waiting(v), "its number is taken")

	v = readTarget(t, "interrupted")
	r.New.Number = 1
	assert.Equal(t, []int{0}, r.waiting(v))
}

func TestRekeyRefusesToFinishWhatALaterOneOvertook(t *testing.T) {
	r, v, _ := halfRekeyed(t)
	require.ErrorContains(t, r.refuseLater(v), "is of version 3")
	r.New.Number = 3
	require.NoError(t, r.refuseLater(v))
}

func TestRekeyNoticesThatAForeignKeyslotChanged(t *testing.T) {
	r, v, _ := halfRekeyed(t)
	identity, err := v.volume.Identity().Digest()
	require.NoError(t, err)
	v.identity = identity
	r.foreign = map[int]string{}
	for _, s := range v.volume.Inventory().Keyslots[:2] {
		r.foreign[s.ID] = s.Mark
	}
	require.NoError(t, r.checkForeign(t.Context(), v))
	r.foreign[1] = "00000000"
	require.ErrorContains(t, r.checkForeign(t.Context(), v), "keyslot 1 of")
	r.foreign = map[int]string{7: "00000000"}
	require.ErrorContains(t, r.checkForeign(t.Context(), v), "keyslot 7 of")
}

func TestRekeyStepsAreNamedOnce(t *testing.T) {
	for _, steps := range [][]Step{first(RekeySteps()), second(RekeySteps())} {
		seen := make(map[Step]bool)
		for _, s := range steps {
			assert.False(t, seen[s], s)
			seen[s] = true
		}
	}
	_, err := (&Rekeying{Old: SecretVersion{Number: 2}, New: SecretVersion{Number: 2}, Out: io.Discard}).Add(t.Context())
	require.ErrorContains(t, err, "does not follow")
}

func first(a, _ []Step) []Step  { return a }
func second(_, b []Step) []Step { return b }

// The resume id of an enrolment goes on to the next version's token.
func TestRekeyKeepsTheResumeID(t *testing.T) {
	r, v, _ := halfRekeyed(t)
	id, err := r.resumeID(v)
	require.NoError(t, err)
	assert.Equal(t, byte(0x11), id[1])
	assert.Equal(t, []luks.OwnToken(nil), (&Rekeying{Volume: "x"}).tokens(readTarget(t, "aes256-4096")))
	_, err = (&Rekeying{Volume: "vol-a", Out: io.Discard}).resumeID(readTarget(t, "enrolled"))
	require.ErrorContains(t, err, "32 hex digits")
}
