package quorum_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root/quorum"
)

func session(t testing.TB) *quorum.Session {
	t.Helper()
	s, err := quorum.NewSession()
	require.NoError(t, err)
	return s
}

// handedOver has a person open their file and hand it over.
func handedOver(t testing.TB, s *quorum.Session, p person, text string) string {
	t.Helper()
	given, faults, err := quorum.OpenShares(p.name, text, p)
	require.NoError(t, err)
	require.Empty(t, faults)
	out, faults, err := quorum.HandOver(s.Recipient(), given)
	require.NoError(t, err)
	require.Empty(t, faults)
	return out
}

// TestCeremony is recovery from end to end: files to custodians, shares handed
// over, keys back.
func TestCeremony(t *testing.T) {
	for name, list := range map[string][]person{
		"X25519": people(t, "Alice", "Bob", "Carol"), "hybrid": quantumPeople(t, "Alice", "Bob", "Carol"),
	} {
		r := opened(t, 2, list)
		entries := []quorum.Entry{entry(t, r, "keyring/system@1", 1), entry(t, r, "keyring/default@1", 2)}
		texts := files(t, r, entries...)
		s := session(t)
		for _, p := range list[1:] {
			n, faults, err := s.Receive(p.name+".handover", handedOver(t, s, p, texts[p.name]))
			require.NoError(t, err)
			require.Empty(t, faults)
			require.Equal(t, 2, n)
		}
		results, faults := quorum.Recover(entries, s.Given())
		require.Empty(t, faults)
		require.Len(t, results, 2, name)
		for i, result := range results {
			require.NoError(t, errors.Join(result.Err, result.Altered))
			assert.Equal(t, entries[i].Name, result.Name)
			assert.True(t, key(i+1).Equal(result.Key))
			assert.ElementsMatch(t, []string{"Bob", "Carol"}, result.By)
		}
		s.Wipe()
		assert.Empty(t, s.Given())
	}
}

func TestShareFileSaysWhatItIs(t *testing.T) {
	list := people(t, "Alice", "Zoë / Zürich")
	r := opened(t, 2, list)
	out, err := quorum.ShareFiles("https://keywright.example", made, []quorum.Entry{entry(t, r, "keyring/system@1", 1), entry(t, r, "keyring/default@7", 2)})
	require.NoError(t, err)
	require.Len(t, out, 2)
	for _, f := range out {
		for _, want := range []string{
			"# Keywright: recovery shares of " + f.Custodian, "https://keywright.example", r.URI() + ", any 2 of 2",
			"2026-11-28T06:00:00Z", "# keyring/system@1\n" + armor.Header, "# keyring/default@7\n" + armor.Header,
		} {
			assert.Contains(t, f.Text, want)
		}
		assert.Regexp(t, `^recovery-shares-[12]-(Alice|Zoë---Zürich)\.txt$`, f.Name)
	}
	for _, installation := range []string{"two\nlines", "\x1b[2J"} {
		_, err = quorum.ShareFiles(installation, made, []quorum.Entry{entry(t, r, "keyring/system@1", 1)})
		require.ErrorContains(t, err, "one line")
	}
	other := entry(t, opened(t, 2, people(t, "Alice", "Bob")), "keyring/old@1", 1)
	_, err = quorum.ShareFiles("x", made, []quorum.Entry{entry(t, r, "keyring/system@1", 1), other})
	require.ErrorContains(t, err, "keyring/old@1")
	require.ErrorContains(t, err, "rewrap it first")
	other.Context = []byte("another row")
	_, err = quorum.ShareFiles("x", made, []quorum.Entry{other})
	require.ErrorIs(t, err, quorum.ErrAltered)
	_, err = quorum.ShareFiles("x", made, nil)
	require.ErrorContains(t, err, "no wrapper")
}

// An age file cut out of a file of shares decrypts with age alone, and what it
// holds, encrypted again with age alone, is taken.
func TestPlainAgeDoes(t *testing.T) {
	list := people(t, "Alice", "Bob")
	r := opened(t, 2, list)
	e := entry(t, r, "keyring/a@1", 1)
	s := session(t)
	to, err := age.ParseHybridRecipient(s.Recipient())
	require.NoError(t, err)
	for _, p := range list {
		text := files(t, r, e)[p.name]
		plain, err := age.Decrypt(armor.NewReader(strings.NewReader(text[strings.Index(text, armor.Header):])), p)
		require.NoError(t, err)
		var out strings.Builder
		w := armor.NewWriter(&out)
		again, err := age.Encrypt(w, to)
		require.NoError(t, err)
		_, err = io.Copy(again, plain)
		require.NoError(t, errors.Join(err, again.Close(), w.Close()))
		n, faults, err := s.Receive(p.name, out.String())
		require.NoError(t, err)
		require.Empty(t, faults)
		require.Equal(t, 1, n)
	}
	combined := quorum.Combine([]quorum.Set{setOf(t, e)}, s.Given())
	require.Len(t, combined.Recovered, 1)
}

// Two people compare it aloud: whoever asks for shares under a name of somebody
// else has another one.
func TestFingerprint(t *testing.T) {
	one, other := session(t), session(t)
	print, err := quorum.Fingerprint(one.Recipient())
	require.NoError(t, err)
	assert.Regexp(t, `^([0-9a-f]{4} ){4}[0-9a-f]{4}$`, print)
	different, err := quorum.Fingerprint(other.Recipient())
	require.NoError(t, err)
	assert.NotEqual(t, print, different)
	_, err = quorum.Fingerprint("age1x")
	require.ErrorContains(t, err, "no recipient of age")

	list := people(t, "Alice", "Bob")
	r := opened(t, 2, list)
	text := handedOver(t, one, list[0], files(t, r, entry(t, r, "keyring/a@1", 1))["Alice"])
	assert.Contains(t, text, print, "it says to whom it was handed over")
}

func TestShareForSomebodyElse(t *testing.T) {
	list := people(t, "Alice", "Bob")
	r := opened(t, 2, list)
	text := files(t, r, entry(t, r, "keyring/a@1", 1))["Alice"]
	_, faults, err := quorum.OpenShares("alice.txt", text, list[1])
	require.NoError(t, err)
	require.Len(t, faults, 1)
	assert.Equal(t, "alice.txt: keyring/a@1: no identity given opens it: it is encrypted to somebody else, or damaged", faults[0].Error())

	s := session(t)
	n, faults, err := s.Receive("alice.txt", text)
	require.NoError(t, err)
	assert.Zero(t, n)
	require.Len(t, faults, 1, "not handed over, but sent as it is")
}

func TestDamagedBlockHindersNoOther(t *testing.T) {
	list := people(t, "Alice", "Bob")
	r := opened(t, 2, list)
	text := files(t, r, entry(t, r, "keyring/a@1", 1), entry(t, r, "keyring/a@2", 2))["Alice"]
	at := strings.Index(text, armor.Header) + len(armor.Header) + 200
	for _, damaged := range []string{text[:at] + "!" + text[at+1:], text[:at] + flipped(text[at:at+1]) + text[at+1:]} {
		given, faults, err := quorum.OpenShares("alice.txt", damaged, list[0])
		require.NoError(t, err)
		require.Len(t, given, 1)
		assert.Equal(t, "alice.txt: keyring/a@2", given[0].From)
		require.Len(t, faults, 1)
		assert.Contains(t, faults[0].Error(), "alice.txt: keyring/a@1: ")
	}
}

func flipped(letter string) string {
	if letter == "A" {
		return "B"
	}
	return "A"
}

func TestFilesThatAreNone(t *testing.T) {
	alice := people(t, "Alice", "Bob")
	r := opened(t, 2, alice)
	text := files(t, r, entry(t, r, "keyring/a@1", 1))["Alice"]
	for name, c := range map[string]struct{ text, want string }{
		"empty":          {"", "no age file"},
		"comments":       {"# nothing\n", "no age file"},
		"a letter":       {"Dear all,\n" + text, "line 1 is no part"},
		"cut off":        {text[:len(text)-40], "cut off"},
		"far too long":   {strings.Repeat("#", 16<<20+1), "16 MiB"},
		"too many files": {strings.Repeat(armor.Header+"\n"+armor.Footer+"\n", 4097), "is no part"},
	} {
		_, _, err := quorum.OpenShares("alice.txt", c.text, alice[0])
		require.ErrorContains(t, err, c.want, name)
		assert.ErrorContains(t, err, "alice.txt")
	}
}

func TestLineEndsOfOtherSystems(t *testing.T) {
	list := people(t, "Alice", "Bob")
	r := opened(t, 2, list)
	text := files(t, r, entry(t, r, "keyring/a@1", 1))["Alice"]
	given, faults, err := quorum.OpenShares("alice.txt", strings.ReplaceAll(text, "\n", "\r\n"), list[0])
	require.NoError(t, err)
	require.Empty(t, faults)
	require.Len(t, given, 1)
}

func TestHandOverRefuses(t *testing.T) {
	list := people(t, "Alice", "Bob")
	r := opened(t, 2, list)
	given := shares(t, r, list[:1], entry(t, r, "keyring/a@1", 1))
	_, _, err := quorum.HandOver("age1nobody", given)
	require.ErrorContains(t, err, "no recipient of age")
	given[0].Data.Expose()[100] ^= 1
	_, faults, err := quorum.HandOver(list[1].recipient, given)
	require.ErrorContains(t, err, "none of them is whole")
	require.Len(t, faults, 1)
	require.ErrorIs(t, faults[0], quorum.ErrMalformed)
}

func TestIdentitiesAreNotRepeated(t *testing.T) {
	for _, text := range []string{"", "AGE-SECRET-KEY-1HIDDEN", "AGE-PLUGIN-YUBIKEY-1HIDDEN", "-----BEGIN AGE ENCRYPTED FILE-----"} {
		_, err := quorum.ParseIdentities(secretOf([]byte(text)))
		require.ErrorContains(t, err, "age-keygen")
		assert.NotContains(t, err.Error(), "HIDDEN")
	}
	identity, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	list, err := quorum.ParseIdentities(secretOf([]byte("# mine\n" + identity.String() + "\n")))
	require.NoError(t, err)
	assert.Len(t, list, 1)
}
