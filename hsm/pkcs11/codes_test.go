//go:build cgo

package pkcs11

import (
	"fmt"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
)

func TestCodesHaveOneClass(t *testing.T) {
	for code := range refusals() {
		assert.NotContains(t, broken(), code)
		require.ErrorIs(t, classed(fmt.Errorf("C_Decrypt: %w", code)), root.ErrRefused)
	}
	for _, code := range append(broken(), p11.CKR_HOST_MEMORY, p11.CKR_SESSION_COUNT, p11.CKR_VENDOR_DEFINED+5) {
		require.ErrorIs(t, classed(code), root.ErrUnavailable)
	}
	given := fmt.Errorf("%w: %w", root.ErrDoesNotOpen, p11.Error(p11.CKR_GENERAL_ERROR))
	assert.Equal(t, given, classed(given))
	assert.False(t, lost(given), "the connection is sound")
	assert.True(t, lost(fmt.Errorf("C_Decrypt: %w", p11.Error(p11.CKR_GENERAL_ERROR))))
	assert.False(t, lost(nil))
	require.NoError(t, classed(nil))
}

func TestPoolIsNoLargerThanTheTokenAllows(t *testing.T) {
	for allowed, want := range map[uint]int{0: maxCalls, p11.CK_UNAVAILABLE_INFORMATION: maxCalls, 1: 1, 3: 3, 1000: maxCalls} {
		assert.Equal(t, want, poolSize(allowed))
	}
}
