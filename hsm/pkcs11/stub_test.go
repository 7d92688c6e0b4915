//go:build !cgo

package pkcs11

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
)

func TestStubSaysWhereItIs(t *testing.T) {
	for uri, says := range map[string]string{
		"pkcs11:serial=1;id=%01" + query: "keywright-pkcs11",
		"pkcs11:serial=1" + query:        "give id",
	} {
		_, err := Open(t.Context(), uri, Settings{})
		require.ErrorIs(t, err, root.ErrRefused)
		require.ErrorContains(t, err, says)
		_, err = Init(t.Context(), uri, Settings{})
		require.ErrorIs(t, err, root.ErrRefused)
		require.ErrorContains(t, err, says)
	}
}
