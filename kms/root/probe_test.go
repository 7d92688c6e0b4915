package root_test

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// forgetful is a root that opens everything to one key of its own.
type forgetful struct{ root.Root }

func (forgetful) URI() string { return "test:forgetful" }

func (forgetful) Wrap(context.Context, secret.Bytes, []byte) (root.Wrapped, error) {
	return root.Wrapped{Ciphertext: []byte("x")}, nil
}

func (forgetful) Unwrap(context.Context, []byte, []byte) (secret.Bytes, error) {
	return secret.New(make([]byte, root.KeySize)), nil
}

func TestProbeWantsWhatItGave(t *testing.T) {
	probe := root.Probe{Root: forgetful{}, Random: rand.Reader}
	require.ErrorContains(t, probe.Ask(t.Context()), "something else")
	probe = root.Probe{Root: forgetful{}, Random: iotest.ErrReader(errors.New("no entropy"))}
	err := probe.Ask(t.Context())
	require.ErrorContains(t, err, "no entropy")
	assert.Contains(t, err.Error(), "test:forgetful")
}
