package luks_test

import (
	"bytes"
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/xts"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// sealedVolume returns a whole device whose keyslot 0 is a person's (argon2id)
// and whose keyslot 1 opens by "machine" (pbkdf2).
func sealedVolume(t testing.TB, volumeKey []byte, edits ...[2]string) []byte {
	return sealDevice(t, sealedImage(t, volumeKey, edits...), volumeKey)
}

func sealedImage(t testing.TB, volumeKey []byte, edits ...[2]string) image {
	i := baseImage(t)
	digest := derive(t, sha256.New, volumeKey, 2)
	i = i.replace(t, "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=", base64.StdEncoding.EncodeToString(digest[:32]))
	for _, edit := range edits {
		i = i.replace(t, edit[0], edit[1])
	}
	return i
}

func sealDevice(t testing.TB, i image, volumeKey []byte) []byte {
	device := make([]byte, deviceSize)
	copy(device, i.bytes())
	sealArea(t, device[290816:], derive(t, sha256.New, []byte("machine"), 1), volumeKey, sha512.New())
	return device
}

// derive stretches to 64 bytes with the salt of the base header that consists of
// one byte repeated.
func derive(t testing.TB, h func() hash.Hash, key []byte, saltByte byte) []byte {
	derived, err := pbkdf2.Key(h, string(key), bytes.Repeat([]byte{saltByte}, 32), 1000, 64)
	require.NoError(t, err)
	return derived
}

func sealArea(t testing.TB, area, areaKey, volumeKey []byte, h hash.Hash) {
	split := splitKey(volumeKey, h)
	c, err := xts.NewCipher(aes.NewCipher, areaKey)
	require.NoError(t, err)
	for sector := range len(split) / 512 {
		c.Encrypt(area[sector*512:(sector+1)*512], split[sector*512:(sector+1)*512], uint64(sector))
	}
}

// splitKey is the anti-forensic splitter.
func splitKey(key []byte, h hash.Hash) []byte {
	split := make([]byte, 4000*len(key))
	rand.Read(split[:3999*len(key)])
	mixed := make([]byte, len(key))
	for at := 0; at < 3999*len(key); at += len(key) {
		subtle.XORBytes(mixed, mixed, split[at:at+len(key)])
		var out []byte
		for n := 0; n*h.Size() < len(mixed); n++ {
			h.Reset()
			h.Write(binary.BigEndian.AppendUint32(nil, uint32(n)))
			h.Write(mixed[n*h.Size() : min((n+1)*h.Size(), len(mixed))])
			out = h.Sum(out)
		}
		copy(mixed, out)
	}
	subtle.XORBytes(split[3999*len(key):], key, mixed)
	return split
}

func key(text string) secret.Bytes { return secret.Copy([]byte(text)) }

func openVolume(t testing.TB, device []byte) *luks.Volume {
	h, err := luks.Parse(bytes.NewReader(device), uint64(len(device)))
	require.NoError(t, err)
	v, err := h.Validate()
	require.NoError(t, err)
	return v
}

func TestUnseal(t *testing.T) {
	volumeKey := bytes.Repeat([]byte{0xa5, 1, 2, 3}, 16)
	v := openVolume(t, sealedVolume(t, volumeKey))
	got, err := v.Unseal(1, key("machine"))
	require.NoError(t, err)
	assert.Equal(t, volumeKey, got.Expose())
	for _, wrong := range []secret.Bytes{key("person"), {}} {
		_, err := v.Unseal(1, wrong)
		require.ErrorIs(t, err, luks.ErrWrongKey)
	}
	_, err = v.Unseal(2, key("machine"))
	requireRefusal(t, err, luks.CodeKeyslotForeign)
	assert.ErrorContains(t, err, "no keyslot 2")
}

// A keyslot that no digest binds to the segment is not tried.
func TestUnsealOfAKeyslotForAnotherKey(t *testing.T) {
	v := openVolume(t, sealedVolume(t, make([]byte, 64), [2]string{`"keyslots":["0","1"]`, `"keyslots":["0"]`}))
	_, err := v.Unseal(1, key("machine"))
	require.ErrorContains(t, err, "no keyslot 1")
	assert.NotErrorIs(t, err, luks.ErrWrongKey)
}

// A keyslot is opened by the copy of the header that was taken, wherever it
// stands and whatever the other one says.
func TestUnsealByTheChosenCopy(t *testing.T) {
	volumeKey := bytes.Repeat([]byte{7}, 64)
	// The area of keyslot 1 is no other's: with this salt nothing opens it.
	outdated := func(b []byte) { copy(b[bytes.Index(b, []byte("AQEBAQ")):], "BQEBAQ") }
	damage := func(b []byte) { b[5000] ^= 1 }
	for _, c := range []struct {
		want         luks.Copies
		seqid        [2]uint64
		patch, spoil func(primary, secondary []byte)
	}{
		{luks.CopiesBoth, [2]uint64{7, 7}, nil, nil},
		{luks.CopiesPrimaryNewer, [2]uint64{8, 7}, func(_, s []byte) { outdated(s) }, nil},
		{luks.CopiesSecondaryNewer, [2]uint64{7, 8}, func(p, _ []byte) { outdated(p) }, nil},
		{luks.CopiesSecondaryOnly, [2]uint64{8, 7}, func(p, _ []byte) { outdated(p) }, func(p, _ []byte) { damage(p) }},
		{luks.CopiesSecondaryOnly, [2]uint64{7, 7}, nil, func(p, _ []byte) { clear(p) }},
		{luks.CopiesPrimaryOnly, [2]uint64{7, 8}, func(_, s []byte) { outdated(s) }, func(_, s []byte) { damage(s) }},
	} {
		i := sealedImage(t, volumeKey)
		i.seqid, i.patch, i.spoil = c.seqid, c.patch, c.spoil
		v := openVolume(t, sealDevice(t, i, volumeKey))
		assert.Equal(t, c.want, v.Header().Copies)
		got, err := v.Unseal(1, key("machine"))
		require.NoError(t, err, c.want)
		assert.Equal(t, volumeKey, got.Expose())
	}
}

// A person's keyslot may be hidden from cryptsetup's own search; named, it opens.
func TestUnsealOfIgnoredKeyslot(t *testing.T) {
	v := openVolume(t, sealedVolume(t, make([]byte, 64), [2]string{`"priority":2`, `"priority":0`}))
	_, err := v.Unseal(1, key("machine"))
	require.NoError(t, err)
}

// Row 11: a keyslot's area is not checksummed, yet whatever is put there opens
// nothing but the volume key that the digest names.
func TestAttack11SwappedKeyslotArea(t *testing.T) {
	device := sealedVolume(t, bytes.Repeat([]byte{1}, 64))
	attackers := sealedVolume(t, bytes.Repeat([]byte{2}, 64))
	copy(device[32768:1<<20], attackers[32768:1<<20])
	_, err := openVolume(t, device).Unseal(1, key("machine"))
	require.ErrorIs(t, err, luks.ErrWrongKey)
}

// A header that somebody changed must not keep a boot busy, whatever its token
// claims to be ours.
func TestUnsealRefusesCosts(t *testing.T) {
	cheap := `"kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000`
	v := openVolume(t, sealedVolume(t, make([]byte, 64), [2]string{cheap, strings.Replace(cheap, "1000", "100001", 1)}))
	for slot := range 2 { // slot 0 is a person's, with argon2id
		_, err := v.Unseal(slot, key("machine"))
		requireRefusal(t, err, luks.CodeKeyslotForeign)
		assert.ErrorContains(t, err, "costs more than pbkdf2 with 100000 iterations", slot)
		assert.Equal(t, errors.Unwrap(err), v.Openable(slot))
	}
	v = openVolume(t, sealedVolume(t, make([]byte, 64)))
	require.NoError(t, v.Openable(1))
}

func TestUnsealOfWhatOnlyThatKeyslotNeeds(t *testing.T) {
	for want, edit := range map[string][2]string{
		`splitter hash "whirlpool"`:  {`"hash":"sha512"`, `"hash":"whirlpool"`},
		`hash "whirlpool" of pbkdf2`: {`"kdf":{"type":"pbkdf2","hash":"sha256"`, `"kdf":{"type":"pbkdf2","hash":"whirlpool"`},
		`hash "sha1" of pbkdf2`:      {`"kdf":{"type":"pbkdf2","hash":"sha256"`, `"kdf":{"type":"pbkdf2","hash":"sha1"`},
		`area cipher "serpent`:       {`"offset":"290816","size":"258048","encryption":"aes`, `"offset":"290816","size":"258048","encryption":"serpent`},
	} {
		v := openVolume(t, sealedVolume(t, make([]byte, 64), edit))
		_, err := v.Unseal(1, key("machine"))
		require.ErrorContains(t, err, want)
	}
}

func TestNoErrorShowsAKey(t *testing.T) {
	v := openVolume(t, sealedVolume(t, make([]byte, 64)))
	_, err := v.Unseal(1, key("canary-canary"))
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "canary")
}

// BenchmarkUnseal opens a keyslot such as enrolment adds.
func BenchmarkUnseal(b *testing.B) {
	v := openVolume(b, sealedVolume(b, make([]byte, 64)))
	for b.Loop() {
		if _, err := v.Unseal(1, key("machine")); err != nil {
			b.Fatal(err)
		}
	}
}
