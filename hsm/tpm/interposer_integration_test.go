//go:build integration

package tpm_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/swtpm"
)

func TestAttack13InterposerSeesNoSecret(t *testing.T) {
	for _, template := range exchange.EKTemplates() {
		wire := &interposer{TPM: swtpm.New(t)}
		id := identify(t, tpm.New(wire), template)
		want := newSecret(t)
		blob, encrypted, err := exchange.MakeCredential(rand.Reader, id.EK(), id.AK(), want)
		require.NoError(t, err)
		got, err := id.ActivateCredential(blob, encrypted)
		require.NoError(t, err)
		require.True(t, got.Equal(want))

		require.True(t, wire.saw(tpm2.TPMCCActivateCredential))
		for _, packet := range wire.wire {
			require.False(t, bytes.Contains(packet, want.Expose()), "%s: the secret crossed the wire", template)
			require.False(t, bytes.Contains(packet, blob), "%s: the credential crossed the wire", template)
		}
	}
}

func TestAttack13InterposerAltersAnswers(t *testing.T) {
	quote := func(id *tpm.Identity) error { _, err := id.Quote([32]byte{}); return err }
	read := func(id *tpm.Identity) error { _, err := id.PCR15(); return err }
	for name, attack := range map[string]struct {
		code tpm2.TPMCC
		act  func(*tpm.Identity) error
	}{
		"PCR values": {tpm2.TPMCCPCRRead, quote},
		"PCR 15":     {tpm2.TPMCCPCRRead, read},
		"quote":      {tpm2.TPMCCQuote, quote},
	} {
		t.Run(name, func(t *testing.T) {
			wire := &interposer{TPM: swtpm.New(t)}
			id := identify(t, tpm.New(wire), exchange.EKP256)
			require.NoError(t, attack.act(id))
			wire.alter = func(command, response []byte) {
				if commandCode(command) == attack.code {
					forge(command, response)
				}
			}
			require.ErrorContains(t, attack.act(id), "HMAC")
		})
	}
}

// forge changes the last byte of a response's parameters, which is part of a
// digest or of a signature, and makes a new HMAC as for a session without salt,
// whose key is empty (TPM 2.0 part 1, section 19.6.5).
func forge(command, response []byte) {
	handles := 0
	if commandCode(command) == tpm2.TPMCCQuote {
		handles = 4
	}
	sent := command[10+handles+4+4:] // after the size of the session area and its handle
	nonceCaller := sent[2 : 2+binary.BigEndian.Uint16(sent)]

	parameters := response[14 : 14+binary.BigEndian.Uint32(response[10:])]
	parameters[len(parameters)-1] ^= 1
	session := response[14+len(parameters):]
	nonceTPM := session[2 : 2+binary.BigEndian.Uint16(session)]
	attributes := session[2+len(nonceTPM) : 3+len(nonceTPM)]

	digest := sha256.Sum256(slices.Concat(response[6:10], command[6:10], parameters))
	mac := hmac.New(sha256.New, nil)
	for _, part := range [][]byte{digest[:], nonceTPM, nonceCaller, attributes} {
		mac.Write(part)
	}
	copy(response[len(response)-sha256.Size:], mac.Sum(nil))
}

func TestAttack13InterposerSwallowsTheExtension(t *testing.T) {
	emulated := swtpm.New(t)
	wire := &interposer{TPM: emulated}
	id := identify(t, tpm.New(wire), exchange.EKP256)
	wire.forge = func(command []byte) []byte {
		if commandCode(command) != tpm2.TPMCCPCRExtend {
			return nil
		}
		// Success, no parameters, and a session that went on: a nonce and an
		// HMAC of the right lengths.
		response := []byte{0x80, 0x02, 0, 0, 0, 83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}
		response = append(response, make([]byte, 32)...)
		response = append(response, 0x81, 0, 32)
		return append(response, make([]byte, 32)...)
	}
	require.ErrorContains(t, id.ExtendPCR15(exchange.NoReleaseEvent()), "HMAC")
	value, err := tpm.New(emulated).PCR15()
	require.NoError(t, err)
	require.Zero(t, value)
}

// An interposer that plays a whole TPM of its own has another EK.
func TestAttack13InterposerPutsItsOwnTPMInBetween(t *testing.T) {
	wire := &interposer{TPM: swtpm.New(t)}
	device := tpm.New(wire)
	id, err := device.Identity(exchange.EKP256, "")
	require.NoError(t, err)
	require.NoError(t, id.Close())
	wire.TPM = swtpm.New(t)
	_, err = device.Identity(exchange.EKP256, id.EK().MachineID())
	require.ErrorIs(t, err, tpm.ErrOtherMachine)
}

func TestQuotedValuesAreThoseThatWereRead(t *testing.T) {
	emulated := swtpm.New(t)
	wire := &interposer{TPM: emulated}
	id := identify(t, tpm.New(wire), exchange.EKP256)
	for _, moment := range []tpm2.TPMCC{tpm2.TPMCCPCRRead, tpm2.TPMCCQuote} {
		extensions := 2
		wire.forge = func(command []byte) []byte {
			if commandCode(command) == moment && extensions > 0 {
				extensions--
				require.NoError(t, emulated.Extend(14, sha256.Sum256([]byte{byte(extensions)})))
			}
			return nil
		}
		quote, err := id.Quote([32]byte{})
		require.NoError(t, err)
		attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](quote.Attest)
		require.NoError(t, err)
		info, err := attest.Attested.Quote()
		require.NoError(t, err)
		digest := quote.PCRs.CompositeDigest()
		require.Equal(t, info.PCRDigest.Buffer, digest[:])
		require.Zero(t, extensions)
	}
}

func TestQuoteGivesUpOnPCRsThatNeverRest(t *testing.T) {
	for _, moment := range []tpm2.TPMCC{tpm2.TPMCCPCRRead, tpm2.TPMCCQuote} {
		emulated := swtpm.New(t)
		wire := &interposer{TPM: emulated}
		id := identify(t, tpm.New(wire), exchange.EKP256)
		wire.forge = func(command []byte) []byte {
			if commandCode(command) == moment {
				require.NoError(t, emulated.Extend(14, [32]byte{}))
			}
			return nil
		}
		_, err := id.Quote([32]byte{})
		require.ErrorContains(t, err, "changed")
	}
}

func TestBusyTPMIsAskedAgain(t *testing.T) {
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting} {
		wire := &interposer{TPM: swtpm.New(t)}
		refusals := 3
		wire.forge = func([]byte) []byte {
			if refusals == 0 {
				return nil
			}
			refusals--
			return refusal(code)
		}
		_, err := tpm.New(wire).PCR15()
		require.NoError(t, err)
	}
}

func (i *interposer) saw(code tpm2.TPMCC) bool {
	for n := 0; n < len(i.wire); n += 2 {
		if commandCode(i.wire[n]) == code {
			return true
		}
	}
	return false
}
