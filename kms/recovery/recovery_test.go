package recovery_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/recovery"
)

// As `systemd-cryptenroll --recovery-key` would write the same bits.
func TestKeyIsTheFormOfSystemd(t *testing.T) {
	bits := make([]byte, 32)
	for i := range bits {
		bits[i] = byte(8 * i)
	}
	key, err := recovery.NewKey(bytes.NewReader(bits))
	require.NoError(t, err)
	assert.Equal(t, "cccjbcbj-dcdjecej-fcfjgcgj-hchjicij-jcjjkckj-lcljncnj-rcrjtctj-ucujvcvj", string(key.Expose()))
	assert.Equal(t, recovery.Length, key.Len())
}

func TestKeyNeedsAllItsBits(t *testing.T) {
	_, err := recovery.NewKey(bytes.NewReader(make([]byte, 31)))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	one, err := recovery.NewKey(rand.Reader)
	require.NoError(t, err)
	other, err := recovery.NewKey(rand.Reader)
	require.NoError(t, err)
	assert.False(t, one.Equal(other))
}

// pair is an identity and its recipient.
type pair struct {
	age.Identity
	recipient string
}

func classic(t *testing.T) pair {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return pair{identity, identity.Recipient().String()}
}

func hybrid(t *testing.T) pair {
	t.Helper()
	identity, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	return pair{identity, identity.Recipient().String()}
}

func decrypt(text string, identity age.Identity) (string, error) {
	in, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), identity)
	if err != nil {
		return "", err
	}
	plain, err := io.ReadAll(in)
	return string(plain), err
}

func TestCopyOpensForEachRecipientAlone(t *testing.T) {
	key, err := recovery.NewKey(rand.Reader)
	require.NoError(t, err)
	for name, makePair := range map[string]func(*testing.T) pair{"X25519": classic, "hybrid": hybrid} {
		one, two, stranger := makePair(t), makePair(t), makePair(t)
		to, err := recovery.ParseRecipients([]string{one.recipient, two.recipient})
		require.NoError(t, err, name)
		text, err := to.Copy(key)
		require.NoError(t, err, name)
		assert.NotContains(t, text, string(key.Expose()))
		for _, identity := range []pair{one, two} {
			plain, err := decrypt(text, identity)
			require.NoError(t, err, name)
			assert.Equal(t, string(key.Expose()), plain, "the key alone, without a line feed")
		}
		_, err = decrypt(text, stranger)
		require.Error(t, err, name)
	}
}

func TestNobodyGetsNoCopy(t *testing.T) {
	key, err := recovery.NewKey(rand.Reader)
	require.NoError(t, err)
	to, err := recovery.ParseRecipients(nil)
	require.NoError(t, err)
	text, err := to.Copy(key)
	require.NoError(t, err)
	assert.Empty(t, text)
}

func TestRecipientsThatAreNone(t *testing.T) {
	one, quantum := classic(t), hybrid(t)
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		texts []string
		want  string
	}{
		"no recipient":    {[]string{one.recipient, "alice"}, "entry 2 is no recipient"},
		"cut off":         {[]string{one.recipient[:40]}, "entry 1 is no recipient"},
		"cut off, hybrid": {[]string{quantum.recipient[:400]}, "entry 1 is no recipient"},
		"empty":           {[]string{""}, "entry 1 is no recipient"},
		"an identity":     {[]string{identity.String()}, "entry 1 is no recipient"},
		"an SSH key":      {[]string{"ssh-ed25519 AAAA"}, "entry 1 is no recipient"},
		"both kinds":      {[]string{quantum.recipient, one.recipient}, "want age1… alone or age1pq1… alone"},
		"too many":        {make([]string, 17), "at most 16"},
	} {
		_, err := recovery.ParseRecipients(c.texts)
		require.ErrorContains(t, err, c.want, name)
		assert.NotContains(t, err.Error(), identity.String(), name)
	}
}

func FuzzParseRecipients(f *testing.F) {
	f.Add("age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq")
	f.Add("age1pq1")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		to, err := recovery.ParseRecipients([]string{text})
		if err != nil {
			return
		}
		key, err := recovery.NewKey(rand.Reader)
		require.NoError(t, err)
		copied, err := to.Copy(key)
		require.NoError(t, err, "what parses can be encrypted to")
		require.NotEmpty(t, copied)
	})
}
