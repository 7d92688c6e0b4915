package awskms_test

import (
	"bytes"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
	counterpart "keywright.dev/test/awskms"
)

// Whatever answers in KMS's place, a root returns a key that its own key's name
// came with, or an error of one class.
func FuzzAnswer(f *testing.F) {
	a := start(f)
	r, arn := a.opened(f)
	ciphertext := wrapped(f, r, "c")
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		body = bytes.ReplaceAll(body, []byte("{arn}"), []byte(arn))
		a.SetLie(func(w http.ResponseWriter, _ counterpart.Answer) {
			w.WriteHeader(200 + int(uint(status)%400))
			_, _ = w.Write(body)
		})
		if _, err := r.Wrap(t.Context(), roottest.Key(1), []byte("c")); err != nil {
			oneClass(t, err)
		}
		key, err := r.Unwrap(t.Context(), ciphertext, []byte("c"))
		if err != nil {
			oneClass(t, err)
			return
		}
		require.Equal(t, root.KeySize, key.Len())
		require.True(t, bytes.Contains(body, []byte(arn)))
	})
}

func oneClass(t *testing.T, err error) {
	t.Helper()
	classes := 0
	for _, class := range []error{root.ErrDoesNotOpen, root.ErrRefused, root.ErrUnavailable} {
		if errors.Is(err, class) {
			classes++
		}
	}
	assert.Equal(t, 1, classes, "%v", err)
}
