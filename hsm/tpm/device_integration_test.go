//go:build integration

package tpm_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/swtpm"
)

func TestDeviceGivesTheSameIdentityEachTime(t *testing.T) {
	device := open(t)
	var ak exchange.AK
	for _, template := range exchange.EKTemplates() {
		t.Run(string(template), func(t *testing.T) {
			first := identify(t, device, template)
			second, err := device.Identity(template, first.EK().MachineID())
			require.NoError(t, err)
			defer func() { require.NoError(t, second.Close()) }()

			assert.Equal(t, template, first.EK().Template)
			assert.Equal(t, first.EK(), second.EK())
			assert.Equal(t, first.AK(), second.AK())
			if ak.Public != nil {
				assert.Equal(t, ak, first.AK(), "the AK must not depend on the EK template")
			}
			ak = first.AK()
		})
	}
}

func TestDeviceRefusesAnotherMachine(t *testing.T) {
	device := open(t)
	_, err := device.Identity(exchange.EKP256, "0123")
	require.ErrorIs(t, err, tpm.ErrOtherMachine)
}

func TestDeviceRefusesAnUnknownTemplate(t *testing.T) {
	_, err := open(t).Identity("rsa-1024", "")
	require.ErrorIs(t, err, exchange.ErrTemplate)
}

func TestDeviceActivatesACredential(t *testing.T) {
	device := open(t)
	for _, template := range exchange.EKTemplates() {
		t.Run(string(template), func(t *testing.T) {
			id := identify(t, device, template)
			want := newSecret(t)
			blob, encrypted, err := exchange.MakeCredential(rand.Reader, id.EK(), id.AK(), want)
			require.NoError(t, err)
			got, err := id.ActivateCredential(blob, encrypted)
			require.NoError(t, err)
			require.True(t, got.Equal(want))
		})
	}
}

func TestDeviceRefusesACredentialForAnotherAK(t *testing.T) {
	device := open(t)
	for _, template := range exchange.EKTemplates() {
		t.Run(string(template), func(t *testing.T) {
			id := identify(t, device, template)
			other := id.AK()
			other.Name = append([]byte{}, other.Name...)
			other.Name[33] ^= 1
			blob, encrypted, err := exchange.MakeCredential(rand.Reader, id.EK(), other, newSecret(t))
			require.NoError(t, err)
			_, err = id.ActivateCredential(blob, encrypted)
			require.ErrorContains(t, err, "activating a credential")
			_, err = id.ActivateCredential(make([]byte, 4096), encrypted)
			require.ErrorContains(t, err, "at most")
		})
	}
}

func TestDeviceQuotes(t *testing.T) {
	id := identify(t, open(t), exchange.EKP256)
	extraData := sha256.Sum256([]byte("statement"))
	quote, err := id.Quote(extraData)
	require.NoError(t, err)

	verifySignature(t, id.AK().Key, quote)
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](quote.Attest)
	require.NoError(t, err)
	assert.Equal(t, tpm2.TPMGeneratedValue, attest.Magic)
	assert.Equal(t, tpm2.TPMSTAttestQuote, attest.Type)
	assert.Equal(t, extraData[:], attest.ExtraData.Buffer)
	info, err := attest.Attested.Quote()
	require.NoError(t, err)
	assert.Equal(t, exchange.MarshaledSelection(), tpm2.Marshal(info.PCRSelect))
	digest := quote.PCRs.CompositeDigest()
	assert.Equal(t, digest[:], info.PCRDigest.Buffer)
}

func TestDeviceCollectsWhatTheLogSays(t *testing.T) {
	device, path := open(t), tpm.DefaultEventLog
	if *devicePath == "" {
		emulated := swtpm.New(t)
		path = filepath.Join("..", "..", "test", "swtpm", "testdata", "grub.bin")
		log, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, emulated.Replay(log))
		device = tpm.New(emulated)
	}
	evidence, err := identify(t, device, exchange.EKP256).Collect([32]byte{1}, path)
	require.NoError(t, err)
	log, err := tcg.ParseEventLog(evidence.EventLog, tcg.ParseOpts{})
	require.NoError(t, err)
	var want exchange.PCRValues
	for _, event := range log.Events(register.HashSHA256) {
		if event.Type != tcg.NoAction {
			old, _ := want.Value(uint(event.Index))
			want.Set(uint(event.Index), exchange.Extend(old, [32]byte(event.Digest)))
		}
	}
	require.Equal(t, want, evidence.PCRs)
}

func TestDeviceSeals(t *testing.T) {
	device := open(t)
	for _, pcrs := range [][]uint{nil, {7}} {
		want := newSecret(t)
		for range 20 {
			sealed, err := device.Seal(want, pcrs)
			require.NoError(t, err)
			got, err := device.Unseal(sealed)
			require.NoError(t, err)
			require.True(t, got.Equal(want))
		}
	}
}

// TestDeviceLeavesNothingBehind fills a TPM without a resource manager if an
// error path forgets an object or a session: there is room for three of each.
func TestDeviceLeavesNothingBehind(t *testing.T) {
	device := open(t)
	for range 50 {
		_, err := device.Identity(exchange.EKP256, "another machine")
		require.ErrorIs(t, err, tpm.ErrOtherMachine)
		id, err := device.Identity(exchange.EKP256, "")
		require.NoError(t, err)
		_, err = id.ActivateCredential([]byte("not"), []byte("a credential"))
		require.Error(t, err)
		_, err = id.Collect([32]byte{}, "/nonexistent")
		require.Error(t, err)
		require.NoError(t, id.Close())
		require.NoError(t, id.Close())
	}
}

func verifySignature(t *testing.T, key *ecdsa.PublicKey, quote tpm.Quote) {
	t.Helper()
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](quote.Signature)
	require.NoError(t, err)
	require.Equal(t, tpm2.TPMAlgECDSA, signature.SigAlg)
	rs, err := signature.Signature.ECDSA()
	require.NoError(t, err)
	require.Equal(t, tpm2.TPMAlgSHA256, rs.Hash)
	digest := sha256.Sum256(quote.Attest)
	r := new(big.Int).SetBytes(rs.SignatureR.Buffer)
	s := new(big.Int).SetBytes(rs.SignatureS.Buffer)
	require.True(t, ecdsa.Verify(key, digest[:], r, s))
}
