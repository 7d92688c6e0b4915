package main

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
)

// TestHangupIsIgnored holds that a hangup ends no service, least of all out of
// order: the interrupt that follows does, and stop demands success.
func TestHangupIsIgnored(t *testing.T) {
	s := startServer(t)
	require.NoError(t, syscall.Kill(s.pid, syscall.SIGHUP))
	operator := api.NewOperatorClient(s.socket)
	t.Cleanup(operator.Close)
	status, err := operator.Status(t.Context())
	require.NoError(t, err)
	assert.True(t, status.Ready)
	s.stop()
}
