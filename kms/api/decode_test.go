package api_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
)

func TestDecodeTakesWhatEncodeWrites(t *testing.T) {
	want := api.ReleaseRequest{Attested: api.Attested{
		Machine: "m", Challenge: []byte{1}, Token: []byte{2}, Statement: []byte("\x00\xff"),
		Evidence: api.Evidence{Quote: []byte{3}, Signature: []byte{4}, PCRs: []byte{5}, EventLog: bytes.Repeat([]byte{6}, 1000)},
	}}
	body, err := api.Encode(want)
	require.NoError(t, err)
	var got api.ReleaseRequest
	require.NoError(t, api.Decode(body, &got))
	assert.Equal(t, want, got)
}

// TestDecodeRefuses what two readers could understand differently. The value
// stands for something secret: no error may repeat it.
func TestDecodeRefuses(t *testing.T) {
	const private = "c2VjcmV0LWlucHV0"
	for name, body := range map[string]string{
		"nothing":               ``,
		"duplicate member":      `{"reason":"a","reason":"` + private + `"}`,
		"other letter case":     `{"Reason":"` + private + `"}`,
		"unknown member":        `{"reason":"a","` + private + `":1}`,
		"trailing value":        `{"reason":"a"}{"reason":"` + private + `"}`,
		"trailing bytes":        `{"reason":"a"} ` + private,
		"cut off":               `{"reason":"` + private,
		"another type":          `{"reason":["` + private + `"]}`,
		"an array":              `["` + private + `"]`,
		"null member":           `{null:"` + private + `"}`,
		"comment":               `{"reason":"a"/*` + private + `*/}`,
		"invalid UTF-8":         "{\"reason\":\"" + private + "\xff\"}",
		"lone surrogate":        `{"reason":"` + private + `\ud800"}`,
		"control character":     "{\"reason\":\"" + private + "\n\"}",
		"byte order mark":       "\xef\xbb\xbf{\"reason\":\"a\"}",
		"nested too deep":       strings.Repeat(`{"reason":`, 20) + `"` + private + `"` + strings.Repeat(`}`, 20),
		"deep arrays":           strings.Repeat(`[`, 1<<20),
		"brackets never closed": `{"reason":"a"` + strings.Repeat(`,"x":[`, 1000),
	} {
		t.Run(name, func(t *testing.T) {
			var v api.Revoke
			err := api.Decode([]byte(body), &v)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), private)
		})
	}
}

func TestDepthIsCountedOutsideStrings(t *testing.T) {
	var v api.Revoke
	require.NoError(t, api.Decode([]byte(`{"reason":"[[[[[[[[[[[[{{{{{{\\\"[[[["}`), &v))
	require.ErrorIs(t, api.Decode([]byte(`{"reason":"\\"`+strings.Repeat(`[`, 9)), &v), api.ErrDepth)
	require.ErrorIs(t, api.Decode([]byte(`{"reason":"a\\\\"`+strings.Repeat(`[`, 9)), &v), api.ErrDepth)
	require.NotErrorIs(t, api.Decode([]byte(`{"reason":"a\\\"`+strings.Repeat(`[`, 9)), &v), api.ErrDepth)
}

func TestBytesAreStandardBase64(t *testing.T) {
	for _, text := range []string{"AQI", "AQI=\\n", "AQ-_", "A QI="} {
		var v api.ReleaseRequest
		assert.Error(t, api.Decode([]byte(`{"challenge":"`+text+`"}`), &v), text)
	}
}

func TestCodesHaveNumbersOfTheirOwn(t *testing.T) {
	seen := make(map[int]api.Code)
	for _, code := range api.Codes() {
		require.NotZero(t, code.Number(), code)
		require.Empty(t, seen[code.Number()], code)
		seen[code.Number()] = code
	}
	assert.Zero(t, api.Code("other").Number())
}

// fuzzDecode holds that what decodes, encodes, and decodes to the same again.
func fuzzDecode[T any](t *testing.T, body []byte) {
	var first T
	if err := api.Decode(body, &first); err != nil {
		return
	}
	encoded, err := api.Encode(first)
	require.NoError(t, err)
	var second T
	require.NoError(t, api.Decode(encoded, &second))
	again, err := api.Encode(second)
	require.NoError(t, err)
	require.Equal(t, string(encoded), string(again))
}

func FuzzDecodeReleaseRequest(f *testing.F) { f.Fuzz(fuzzDecode[api.ReleaseRequest]) }

func FuzzDecodeCompleteRequest(f *testing.F) { f.Fuzz(fuzzDecode[api.CompleteRequest]) }

func FuzzDecodeSubmitMeasurement(f *testing.F) { f.Fuzz(fuzzDecode[api.SubmitMeasurement]) }
