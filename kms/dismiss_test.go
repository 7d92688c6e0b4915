package kms_test

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// What somebody booted once too often can be cleared away, so that the machine's
// next kernel is announced again.
func TestWaitingMeasurementIsDismissed(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	staged := f.stage(m, "grub-oldkernel")
	waiting := staged.Boots[0].Measurement
	entry, err := f.DismissMeasurement(t.Context(), operator(), waiting, "")
	require.NoError(t, err)
	assert.Equal(t, waiting, hex.EncodeToString(entry.Digest[:]))
	_, err = f.FindMeasurement(t.Context(), waiting, "")
	require.ErrorIs(t, err, kms.ErrNotFound)
	assert.Equal(t, kms.ActionDismissMeasurement, f.lastEntry(m.TPM.Machine()).Action)
	again := f.stage(m, "grub-oldkernel")
	assert.Equal(t, waiting, again.Boots[0].Measurement, "it waits again")
}

func TestDismissalRefuses(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	row, err := f.FindMachine(t.Context(), "web-17")
	require.NoError(t, err)
	_, err = f.DismissMeasurement(t.Context(), operator(), hex.EncodeToString(row.Measurement[:]), "")
	require.ErrorContains(t, err, "it is approved")
	_, err = f.DismissMeasurement(t.Context(), operator(), hex.EncodeToString(make([]byte, 32)), "")
	require.ErrorIs(t, err, kms.ErrNotFound)

	pending := f.machine("web-18")
	require.NoError(t, pending.Enroll(t.Context(), f.guest()))
	row, err = f.FindMachine(t.Context(), pending.TPM.Machine())
	require.NoError(t, err)
	_, err = f.DismissMeasurement(t.Context(), operator(), hex.EncodeToString(row.Expected[:]), "")
	require.ErrorContains(t, err, "waits for approval: revoke the machine")

	staged := f.stage(m, "grub-oldkernel")
	dry := operator()
	dry.DryRun = true
	_, err = f.DismissMeasurement(t.Context(), dry, staged.Boots[0].Measurement, "")
	require.NoError(t, err)
	_, err = f.FindMeasurement(t.Context(), staged.Boots[0].Measurement, "")
	require.NoError(t, err, "a dry run changes nothing")
}
