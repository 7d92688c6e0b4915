package shamir

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
)

// slip39JSON holds the shares of published mnemonics, decoded. SLIP-39 splits
// over the same field, with the secret at 255 and a digest of it at 254.
//
//go:embed testdata/slip39.json
var slip39JSON []byte

func TestPublishedVectors(t *testing.T) {
	var vectors []struct {
		Name, Secret, Digest string
		Shares               []struct {
			Number byte
			Value  string
		}
	}
	require.NoError(t, json.Unmarshal(slip39JSON, &vectors))
	require.NotEmpty(t, vectors)
	for _, v := range vectors {
		var points []Share
		for _, s := range v.Shares {
			points = append(points, Share{s.Number, secret.New(fromHex(t, s.Value))})
		}
		shared, digest := interpolate(points, 255).Expose(), interpolate(points, 254).Expose()
		assert.Equal(t, v.Secret, hex.EncodeToString(shared), v.Name)
		assert.Equal(t, v.Digest, hex.EncodeToString(digest), v.Name)
		mac := hmac.New(sha256.New, digest[4:])
		mac.Write(shared)
		assert.Equal(t, digest[:4], mac.Sum(nil)[:4], "%s: SLIP-39's own check", v.Name)
	}
}

func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	require.NoError(t, err)
	return data
}

func TestField(t *testing.T) {
	// FIPS 197, sections 4.2 and 4.3.
	assert.Equal(t, byte(0xc1), multiply(0x57, 0x83))
	assert.Equal(t, byte(0xfe), multiply(0x57, 0x13))
	assert.Zero(t, invert(0))
	for a := range 256 {
		assert.Equal(t, byte(a), multiply(byte(a), 1))
		assert.Zero(t, multiply(byte(a), 0))
		for b := range 256 {
			assert.Equal(t, multiply(byte(b), byte(a)), multiply(byte(a), byte(b)))
			assert.Equal(t, multiply(byte(a), byte(b)^0x35), multiply(byte(a), byte(b))^multiply(byte(a), 0x35))
		}
		if a > 0 {
			assert.Equal(t, byte(1), multiply(byte(a), invert(byte(a))))
		}
	}
}

// subsets calls visit with every selection of shares.
func subsets(shares []Share, visit func([]Share)) {
	for mask := range 1 << len(shares) {
		var chosen []Share
		for i, s := range shares {
			if mask>>i&1 == 1 {
				chosen = append(chosen, s)
			}
		}
		visit(chosen)
	}
}

func TestThresholdIsExact(t *testing.T) {
	shared := secret.Copy([]byte("thirty-two bytes of a secret key"))
	for n := 1; n <= 6; n++ {
		for threshold := 1; threshold <= n; threshold++ {
			shares, err := Split(rand.Reader, shared, threshold, n)
			require.NoError(t, err)
			require.Len(t, shares, n)
			subsets(shares, func(chosen []Share) {
				slices.Reverse(chosen)
				got, err := Combine(chosen)
				if len(chosen) == 0 {
					require.Error(t, err)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, len(chosen) >= threshold, shared.Equal(got), "%d of %d, %d given", threshold, n, len(chosen))
			})
		}
	}
}

// With one share fewer than the threshold every secret is as likely: whatever
// byte is guessed, there is one last share that gives it.
func TestFewerSharesTellNothing(t *testing.T) {
	shares, err := Split(rand.Reader, secret.Copy([]byte{0x42}), 3, 3)
	require.NoError(t, err)
	var possible [256]bool
	for last := range 256 {
		got, err := Combine([]Share{shares[0], shares[1], {3, secret.New([]byte{byte(last)})}})
		require.NoError(t, err)
		possible[got.Expose()[0]] = true
	}
	assert.NotContains(t, possible, false)
}

func TestCoefficientsAreTheRandomBytes(t *testing.T) {
	// 0x10 + 2x + 3x² at 1, 2 and 3, by hand.
	shares, err := Split(bytes.NewReader([]byte{2, 3}), secret.Copy([]byte{0x10}), 3, 3)
	require.NoError(t, err)
	for i, want := range []byte{0x11, 0x18, 0x19} {
		assert.Equal(t, []byte{want}, shares[i].Value.Expose())
	}
}

func TestSplitRefuses(t *testing.T) {
	key := secret.Copy([]byte("k"))
	for _, c := range []struct{ threshold, n int }{{0, 3}, {-1, 3}, {4, 3}, {2, 256}, {0, 0}} {
		_, err := Split(rand.Reader, key, c.threshold, c.n)
		require.ErrorContains(t, err, "want 1 ≤ threshold", "%v", c)
	}
	_, err := Split(rand.Reader, secret.Bytes{}, 2, 3)
	require.ErrorContains(t, err, "empty")
	_, err = Split(iotest.ErrReader(errors.New("no entropy")), key, 2, 3)
	require.ErrorContains(t, err, "no entropy")
}

func TestCombineRefuses(t *testing.T) {
	one := func(number byte, text string) Share { return Share{number, secret.Copy([]byte(text))} }
	for want, shares := range map[string][]Share{
		"at least one":          nil,
		"the number 0":          {one(0, "a"), one(1, "b")},
		"two have the number 7": {one(7, "a"), one(7, "a")},
		"their lengths differ":  {one(1, "a"), one(2, "bb")},
		"or are 0":              {one(1, ""), one(2, "")},
	} {
		_, err := Combine(shares)
		require.ErrorContains(t, err, want)
	}
}

func TestNothingPrintsAShare(t *testing.T) {
	shares, err := Split(rand.Reader, secret.Copy([]byte("secret")), 1, 1)
	require.NoError(t, err)
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", shares, shares, shares), "secret{")
	assert.Contains(t, fmt.Sprintf("%v", shares), "[secret]")
}
