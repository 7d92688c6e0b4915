package luks

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
)

func bytesOf(text string) secret.Bytes { return secret.Copy([]byte(text)) }

// cryptsetup asks for the keys in the order of their keyslots, one a line.
func TestKeysOfAReencryptionAreLines(t *testing.T) {
	lines, err := linesOf([]SlotKey{{31, bytesOf("ours")}, {2, bytesOf("recovery")}})
	require.NoError(t, err)
	var text strings.Builder
	for _, l := range lines {
		text.Write(l.Expose())
	}
	assert.Equal(t, "recovery\nours\n", text.String())
	for name, k := range map[string]SlotKey{
		"line feed": {1, bytesOf("a\n")},
		"too long":  {1, bytesOf(strings.Repeat("x", maxLine+1))},
		"empty":     {1, secret.Bytes{}},
		"no slot":   {32, bytesOf("x")},
	} {
		require.Error(t, CheckReencryptionKeys([]SlotKey{{0, bytesOf("x")}, k}), name)
	}
	require.ErrorIs(t, CheckReencryptionKeys([]SlotKey{{1, bytesOf("a\n")}}), ErrLineFeed)
	require.NoError(t, CheckReencryptionKeys([]SlotKey{{1, bytesOf(strings.Repeat("x", maxLine))}}))
}

// Progress comes in pieces, and among other lines.
func TestProgressIsReadByLines(t *testing.T) {
	var got []Progress
	w := &lineWriter{each: Resumption{Progress: func(p Progress) { got = append(got, p) }}.tell}
	line := `{"device":"d","device_bytes":"1","device_size":"2","speed":"3","eta_ms":"4","time_ms":"5"}`
	text := "Finished, time 00m01s\n" + strings.Repeat("x", 3*maxProgress) + "\n" + line + "\n" + line + "\n" + line
	for _, b := range []byte(text) {
		n, err := w.Write([]byte{b})
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	assert.Len(t, got, 2, "the last line has no end yet")
	assert.LessOrEqual(t, cap(w.line), 2*maxProgress+1024)
	Resumption{}.tell([]byte(line))
}
