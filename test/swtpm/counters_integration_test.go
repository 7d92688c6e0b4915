//go:build integration

package swtpm_test

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/test/swtpm"
)

// TestCountersOfATPMNeverGoBack does to a TPM whatever happens to one that is
// not copied, in any order: to a service that looks now and then its counters
// only ever go on. It is killed while it starts up, too.
func TestCountersOfATPMNeverGoBack(t *testing.T) {
	tpm := swtpm.New(t)
	events := []struct {
		name   string
		happen func() error
	}{
		{"reset", tpm.Reset},
		{"orderly reset", func() error {
			if err := tpm.Shutdown(); err != nil {
				return err
			}
			return tpm.Reset()
		}},
		{"resume", tpm.Resume},
		{"hibernate", tpm.Hibernate},
		{"loss of power", tpm.Restart},
		{"loss of power while starting", tpm.CrashStarting},
		{"time", func() error { return nil }},
	}
	random := rand.New(rand.NewPCG(1, 2))
	last := counters(t, tpm)
	for range 400 {
		event := events[random.IntN(len(events))]
		require.NoError(t, event.happen(), event.name)
		now := counters(t, tpm)
		require.NotEqual(t, attest.Regression, now.Since(last), "%s: %+v after %+v", event.name, now, last)
		last = now
	}
}

func TestResumeKeepsPCRs(t *testing.T) {
	tpm := swtpm.New(t)
	require.NoError(t, tpm.Extend(15, [32]byte{1}))
	before, extended := counters(t, tpm), readPCR(t, tpm, 15)

	require.NoError(t, tpm.Resume())
	now := counters(t, tpm)
	require.Equal(t, extended, readPCR(t, tpm, 15))
	require.Equal(t, before.ResetCount, now.ResetCount)
	require.Equal(t, before.RestartCount+1, now.RestartCount)

	require.NoError(t, tpm.Hibernate())
	now = counters(t, tpm)
	require.Equal(t, make([]byte, 32), readPCR(t, tpm, 15))
	require.Equal(t, before.ResetCount, now.ResetCount)
	require.Equal(t, before.RestartCount+2, now.RestartCount)
}

func counters(t *testing.T, tpm *swtpm.TPM) attest.Counters {
	t.Helper()
	rsp, err := tpm2.ReadClock{}.Execute(tpm)
	require.NoError(t, err)
	c := rsp.CurrentTime.ClockInfo
	return attest.Counters{ResetCount: c.ResetCount, RestartCount: c.RestartCount, Clock: c.Clock, Safe: c.Safe}
}
