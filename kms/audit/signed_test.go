package audit_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/audit"
)

func TestSignedEntryVerifies(t *testing.T) {
	s := newSigner(t, 1)
	signed, err := s.Sign(entryN(3))
	require.NoError(t, err)
	parsed, err := audit.ParseSigned(signed.Marshal())
	require.NoError(t, err)
	assert.Equal(t, signed, parsed)

	e, err := s.Verifier().Verify(signed.Marshal())
	require.NoError(t, err)
	assert.Equal(t, entryN(3), e)
}

func TestSignRefusesAnEntryOutOfBounds(t *testing.T) {
	_, err := newSigner(t, 1).Sign(audit.Entry{})
	assert.ErrorContains(t, err, "encoding audit entry")
}

// TestNoBitOfASignedEntryCanChange flips each bit of the stored form.
func TestNoBitOfASignedEntryCanChange(t *testing.T) {
	s := newSigner(t, 1)
	signed, err := s.Sign(entryN(0))
	require.NoError(t, err)
	good := signed.Marshal()
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			_, err := s.Verifier().Verify(bad)
			require.Error(t, err, "byte %d bit %d", i, bit)
		}
	}
}

func TestSignedEntryOfAnotherKeyIsRefused(t *testing.T) {
	signed, err := newSigner(t, 2).Sign(entryN(0))
	require.NoError(t, err)
	_, err = newSigner(t, 1).Verifier().Verify(signed.Marshal())
	require.ErrorIs(t, err, audit.ErrSignature)
	require.ErrorContains(t, err, "signed by key")

	ours, err := newSigner(t, 1).Sign(entryN(0))
	require.NoError(t, err)
	signed.Key = ours.Key
	_, err = newSigner(t, 1).Verifier().Verify(signed.Marshal())
	require.ErrorIs(t, err, audit.ErrSignature)
}

// TestEntryAndHeadSignaturesAreDisjoint: the bytes of one, signed by the log
// key without its domain, do not verify as the other.
func TestEntryAndHeadSignaturesAreDisjoint(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	s := newSigner(t, 1)
	signed, err := s.Sign(entryN(0))
	require.NoError(t, err)
	assert.True(t, ed25519.Verify(key.Public().(ed25519.PublicKey),
		append([]byte("keywright/audit-entry/v1\x00"), signed.Entry...), signed.Signature))

	signed.Signature = ed25519.Sign(key, signed.Entry)
	_, err = s.Verifier().Verify(signed.Marshal())
	require.ErrorIs(t, err, audit.ErrSignature)
}

func TestParseSignedRefusesOtherFrames(t *testing.T) {
	signed, err := newSigner(t, 1).Sign(entryN(0))
	require.NoError(t, err)
	good := string(signed.Marshal())
	for _, bad := range []string{
		"", "{}", good + "\n", " " + good, good[:len(good)-1],
		strings.Replace(good, `,"key":"`, `,"KEY":"`, 1),
		good[:len(good)-2] + `" }`,
		string(audit.Signed{Entry: make([]byte, audit.MaxEntry+1), Key: 1, Signature: signed.Signature}.Marshal()),
	} {
		_, err := audit.ParseSigned([]byte(bad))
		assert.Error(t, err, "%.80s", bad)
	}
}

func TestPrintingASignerShowsNoKey(t *testing.T) {
	seed := bytes.Repeat([]byte{0x5a}, ed25519.SeedSize)
	s, err := audit.NewSigner(origin, ed25519.NewKeyFromSeed(seed))
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		out := strings.ToLower(fmt.Sprintf(verb, s) + fmt.Sprintf(verb, *s))
		for _, leak := range []string{hex.EncodeToString(seed[:4]), "90 90 90 90", "ZZZZ", "0x5a, 0x5a"} {
			assert.NotContains(t, out, strings.ToLower(leak), verb)
		}
	}
}

func TestNewSignerRefusesOtherKeysAndNames(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	_, err = audit.NewSigner(origin, p256)
	require.ErrorContains(t, err, "want an Ed25519 key")

	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for _, name := range []string{"", "two words", "a+b", "a\x01b", "\xff", strings.Repeat("a", audit.MaxName+1)} {
		_, err := audit.NewSigner(name, key)
		assert.ErrorContains(t, err, "origin", "%q", name)
	}
	_, err = audit.NewVerifier(origin, make([]byte, 31))
	require.ErrorContains(t, err, "31 bytes, want 32")
}

func TestParseVerifier(t *testing.T) {
	v := newSigner(t, 1).Verifier()
	assert.Equal(t, origin, v.Origin())
	back, err := audit.ParseVerifier(v.String())
	require.NoError(t, err)
	assert.Equal(t, v.String(), back.String())

	name, rest, _ := strings.Cut(v.String(), "+")
	unprintable := "a\x01b+" + rest
	for _, bad := range []string{"", name, "other+" + rest, unprintable, v.String() + "A", base64.StdEncoding.EncodeToString([]byte(rest))} {
		_, err := audit.ParseVerifier(bad)
		assert.Error(t, err, bad)
	}
}

func FuzzParseSigned(f *testing.F) {
	signed, err := newSigner(f, 1).Sign(entryN(0))
	require.NoError(f, err)
	f.Add(signed.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := audit.ParseSigned(b)
		if err == nil {
			assert.True(t, bytes.Equal(b, s.Marshal()), "%q", b)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s, e := newSigner(b, 1), entryN(0)
	for b.Loop() {
		signed, err := s.Sign(e)
		if err != nil || len(signed.Marshal()) == 0 {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b, 1)
	signed, err := s.Sign(entryN(0))
	require.NoError(b, err)
	stored := signed.Marshal()
	for b.Loop() {
		if _, err := s.Verifier().Verify(stored); err != nil {
			b.Fatal(err)
		}
	}
}
