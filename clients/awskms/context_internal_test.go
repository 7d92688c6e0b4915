package awskms

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is wrapped opens under these pairs alone: they never change.
func TestEncryptionContextIsStable(t *testing.T) {
	for context, want := range map[string]map[string]string{
		"":            {"keywright": "root/v1"},
		"keyring/a@1": {"keywright": "root/v1", "keywright-context": "keyring/a@1"},
		"keywright/keyring/v1\x00default\x00prod\x003": {"keywright": "root/v1", "keywright-context": "keywright/keyring/v1%00default%00prod%003"},
		"50% \"*?$\xff":          {"keywright": "root/v1", "keywright-context": "50%25%20%22%2A%3F%24%FF"},
		strings.Repeat("a", 384): {"keywright": "root/v1", "keywright-context": strings.Repeat("a", 384)},
		strings.Repeat("a", 385): {"keywright": "root/v1", "keywright-context-sha256": "637310b1a9640cb19b74633c5537f9a7a58009c731ae1edc16b06c959552a0af"},
	} {
		assert.Equal(t, want, encryptionContext([]byte(context)))
	}
}

func FuzzEncryptionContext(f *testing.F) {
	f.Fuzz(func(t *testing.T, context []byte) {
		pairs := encryptionContext(context)
		require.Equal(t, purpose, pairs[purposeKey])
		text, readable := pairs[contextKey]
		if !readable {
			require.True(t, len(context) == 0 || len(pairs[digestKey]) == 64)
			return
		}
		require.LessOrEqual(t, len(text), maxValue)
		back, err := url.PathUnescape(text)
		require.NoError(t, err)
		require.Equal(t, string(context), back)
	})
}

func TestTranslateRetryAfter(t *testing.T) {
	for given, want := range map[string]string{"": "", "2": "2000", "86400": "60000", "-1": "", "Fri, 31 Dec 1999 23:59:59 GMT": "", "1e3": ""} {
		h := http.Header{}
		h.Set("Retry-After", given)
		translateRetryAfter(h)
		assert.Equal(t, want, h.Get("X-Amz-Retry-After"), given)
	}
	h := http.Header{"Retry-After": {"2"}, "X-Amz-Retry-After": {"5"}}
	translateRetryAfter(h)
	assert.Equal(t, "5", h.Get("X-Amz-Retry-After"), "what AWS itself says counts")
}

func TestPrintable(t *testing.T) {
	assert.Equal(t, "a b", printable(" a\nb\x1b"))
	assert.Equal(t, "is (withheld).", printable("is "+strings.Repeat("A", 43)+"=."))
	assert.LessOrEqual(t, len(printable(strings.Repeat("a ", 1000))), maxText+len("…"))
}
