package sim_test

import (
	"crypto/rand"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

func newTPM(t *testing.T) *sim.TPM {
	t.Helper()
	tpm, err := sim.NewTPM()
	require.NoError(t, err)
	return tpm
}

func TestCredentialIsForOneTPM(t *testing.T) {
	tpm := newTPM(t)
	ek, err := exchange.CheckEK(tpm.EKPublic)
	require.NoError(t, err)
	ak, err := exchange.CheckAK(tpm.AKPublic)
	require.NoError(t, err)
	assert.Equal(t, ek.MachineID(), tpm.Machine())
	want, err := secret.Random(rand.Reader, exchange.CredentialSize)
	require.NoError(t, err)
	blob, encrypted, err := exchange.MakeCredential(rand.Reader, ek, ak, want)
	require.NoError(t, err)
	got, err := tpm.ActivateCredential(blob, encrypted)
	require.NoError(t, err)
	assert.True(t, want.Equal(got))
	_, err = newTPM(t).ActivateCredential(blob, encrypted)
	require.Error(t, err)
}

func TestQuoteIsOneThatTheServiceBelieves(t *testing.T) {
	log, err := sim.ReadLog(filepath.Join("..", "..", "kms", "attest", "testdata", "eventlogs", "ovmf-uki.bin"))
	require.NoError(t, err)
	tpm := newTPM(t)
	tpm.Boot(log)
	extra := [32]byte{1}
	attested, signature, err := tpm.Quote(extra)
	require.NoError(t, err)
	ak, err := exchange.CheckAK(tpm.AKPublic)
	require.NoError(t, err)
	quote := attest.Quote{Attested: attested, Signature: signature, PCRs: tpm.PCRs}
	quoted, err := attest.CheckQuote(attest.AK{Name: ak.Name, Key: ak.Key}, quote, extra)
	require.NoError(t, err)
	boot, err := attest.NewAppraiser(1).Appraise(quoted, log.Bytes)
	require.NoError(t, err)
	assert.NotZero(t, boot.Measurement.Len())
	assert.Zero(t, boot.PCR15)
}
