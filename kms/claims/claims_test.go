package claims_test

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
)

func set(t testing.TB, kind claims.Kind, lines ...string) claims.Set {
	t.Helper()
	var list []claims.Claim
	for _, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		list = append(list, claims.Claim{Name: name, Value: value})
	}
	s, err := claims.New(kind, list)
	require.NoError(t, err)
	return s
}

func TestCanonicalForm(t *testing.T) {
	s := set(t, claims.Measurement, "secureboot.state enabled", "action 4 Calling EFI Application from Boot Option")
	want := "keywright claims v1 measurement\nsecureboot.state enabled\naction 4 Calling EFI Application from Boot Option\n"
	assert.Equal(t, want, string(s.Marshal()))
	assert.Equal(t, sha256.Sum256([]byte(want)), s.Digest())

	again, err := claims.Parse(s.Marshal())
	require.NoError(t, err)
	assert.True(t, again.Equal(s))
	assert.Empty(t, claims.Diff(s, again))
}

func TestKindIsPartOfTheDigest(t *testing.T) {
	measurement := set(t, claims.Measurement, "separator 1 00000000")
	platform := set(t, claims.Platform, "separator 1 00000000")
	assert.NotEqual(t, measurement.Digest(), platform.Digest())
	assert.Equal(t, []claims.Difference{{Name: "kind", Was: "measurement", Is: "platform"}}, claims.Diff(measurement, platform))
}

func TestZeroSetIsNothing(t *testing.T) {
	var zero claims.Set
	empty := set(t, claims.Measurement)
	assert.Zero(t, zero.Digest())
	assert.NotZero(t, empty.Digest())
	_, err := claims.Parse(zero.Marshal())
	require.ErrorIs(t, err, claims.ErrMalformed)
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]claims.Claim{
		"no name":               {Value: "x"},
		"upper case":            {Name: "Boot", Value: "x"},
		"two dots":              {Name: "a..b", Value: "x"},
		"dot at the end":        {Name: "a.", Value: "x"},
		"digit first":           {Name: "a.1b", Value: "x"},
		"hyphen at the end":     {Name: "a-", Value: "x"},
		"hyphen before a dot":   {Name: "a-.b", Value: "x"},
		"two hyphens":           {Name: "a--b", Value: "x"},
		"space in the name":     {Name: "a b", Value: "x"},
		"long name":             {Name: strings.Repeat("a", claims.MaxName+1), Value: "x"},
		"no value":              {Name: "a"},
		"space first":           {Name: "a", Value: " x"},
		"space last":            {Name: "a", Value: "x "},
		"line feed":             {Name: "a", Value: "x\nb y"},
		"delete character":      {Name: "a", Value: "x\x7f"},
		"other than ASCII":      {Name: "a", Value: "ä"},
		"long value":            {Name: "a", Value: strings.Repeat("x", claims.MaxValue+1)},
		"terminal escape codes": {Name: "a", Value: "x\x1b[2J"},
	} {
		_, err := claims.New(claims.State, []claims.Claim{c})
		assert.Error(t, err, name)
	}
	_, err := claims.New("", nil)
	require.ErrorContains(t, err, "kind")
	_, err = claims.New(claims.State, make([]claims.Claim, claims.MaxClaims+1))
	require.ErrorContains(t, err, "at most 8192")
	_, err = claims.New(claims.State, slicesOf(claims.Claim{Name: "a", Value: strings.Repeat("x", claims.MaxValue)}, 300))
	require.ErrorContains(t, err, "at most 1048576")
}

func slicesOf(c claims.Claim, n int) []claims.Claim {
	list := make([]claims.Claim, n)
	for i := range list {
		list[i] = c
	}
	return list
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":            "",
		"no version":         "a b\n",
		"other version":      "keywright claims v2 state\na b\n",
		"unknown kind":       "keywright claims v1 mood\na b\n",
		"no line feed":       "keywright claims v1 state\na b",
		"header cut":         "keywright claims v1 state",
		"line without value": "keywright claims v1 state\na\n",
		"empty line":         "keywright claims v1 state\n\n",
		"two spaces":         "keywright claims v1 state\na  b\n",
		"carriage return":    "keywright claims v1 state\r\na b\r\n",
		"too many":           "keywright claims v1 state\n" + strings.Repeat("a b\n", claims.MaxClaims+1),
		"too long":           "keywright claims v1 state\n" + strings.Repeat("a "+strings.Repeat("b", 997)+"\n", 1100),
	} {
		_, err := claims.Parse([]byte(text))
		assert.ErrorIs(t, err, claims.ErrMalformed, name)
	}
}

func TestAccess(t *testing.T) {
	s := set(t, claims.State, "a 1", "b 2", "a 3")
	assert.Equal(t, claims.State, s.Kind())
	assert.Equal(t, 3, s.Len())
	assert.Equal(t, []string{"1", "3"}, s.Values("a"))
	assert.True(t, s.Has("b"))
	assert.False(t, s.Has("c"))
	value, ok := s.One("b")
	assert.True(t, ok)
	assert.Equal(t, "2", value)
	_, ok = s.One("a")
	assert.False(t, ok, "two values are not one")
}

func TestNewCopies(t *testing.T) {
	list := []claims.Claim{{Name: "a", Value: "1"}}
	s, err := claims.New(claims.State, list)
	require.NoError(t, err)
	list[0].Value = "2"
	assert.Equal(t, []string{"1"}, s.Values("a"))
}

func TestCommandLineDigest(t *testing.T) {
	assert.Equal(t, sha256Hex("r\x00o\x00\x00\x00"), claims.CommandLineDigest("ro"))
}
