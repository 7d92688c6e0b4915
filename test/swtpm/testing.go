package swtpm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// New starts a new TPM without certificates, in milliseconds, which ends with
// the test.
func New(tb testing.TB) *TPM {
	tb.Helper()
	return Resume(tb, tb.TempDir())
}

// NewCertified starts a new TPM with EK certificates of a CA, in a second or
// two, which ends with the test.
func NewCertified(tb testing.TB, ca *CA) *TPM {
	tb.Helper()
	state := tb.TempDir()
	require.NoError(tb, ca.Manufacture(state, "test"))
	return Resume(tb, state)
}

// Resume starts a TPM on a state directory, which ends with the test.
func Resume(tb testing.TB, state string) *TPM {
	tb.Helper()
	t, err := Start(state)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, t.Close()) })
	return t
}
