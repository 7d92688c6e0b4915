package exchange_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
)

func TestFingerprintHasOneForm(t *testing.T) {
	text := "sha256:" + strings.Repeat("0a", 32)
	fingerprint, err := exchange.ParseFingerprint(text)
	require.NoError(t, err)
	assert.Equal(t, byte(0x0a), fingerprint[31])
	assert.Equal(t, text, exchange.FormatFingerprint(fingerprint))
	for _, wrong := range []string{
		"", "sha256:", strings.Repeat("0a", 32), strings.ToUpper(text), "sha256:" + strings.Repeat("0A", 32),
		text + "00", text[:len(text)-2], text + "\n", "SHA256:" + strings.Repeat("0a", 32), "sha256:" + strings.Repeat("0g", 32),
	} {
		_, err := exchange.ParseFingerprint(wrong)
		require.Error(t, err, wrong)
	}
}
