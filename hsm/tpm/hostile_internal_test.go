package tpm

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

func TestPCRsOfAnotherKindAreRefused(t *testing.T) {
	sha1 := selection([]uint{15})
	sha1.PCRSelections[0].Hash = tpm2.TPMAlgSHA1
	digest := func(size int) []tpm2.TPM2BDigest { return []tpm2.TPM2BDigest{{Buffer: make([]byte, size)}} }
	for reason, response := range map[string]struct {
		selection tpm2.TPMLPCRSelection
		digests   []tpm2.TPM2BDigest
	}{
		"no SHA-256 PCR bank":                  {selection(nil), nil},
		"gave 20 bytes for PCR 15":             {selection([]uint{15}), digest(20)},
		"other PCRs than were asked for":       {selection([]uint{14}), digest(32)},
		"gave other PCRs than were asked for":  {sha1, digest(32)},
		": the TPM gave other PCRs than were ": {selection([]uint{14, 15}), append(digest(32), digest(32)...)},
	} {
		body := tpm2.Marshal(response.selection)
		body = append([]byte{0, 0, 0, 1}, body...)
		body = append(body, tpm2.Marshal(tpm2.TPMLDigest{Digests: response.digests})...)
		device := New(sendFunc(func([]byte) ([]byte, error) {
			return append([]byte{0x80, 0x01, 0, 0, 0, byte(10 + len(body)), 0, 0, 0, 0}, body...), nil
		}))
		_, err := device.PCR15()
		require.ErrorContains(t, err, reason)
	}
}

// FuzzResponses lets a TPM answer each command with bytes of its choice.
func FuzzResponses(f *testing.F) {
	f.Fuzz(func(t *testing.T, code uint32, handles, body []byte) {
		answer := sendFunc(func([]byte) ([]byte, error) {
			return slices.Concat(refusal(tpm2.TPMRC(code)), handles, body), nil
		})
		device := &Device{tpm: patient{answer, func(time.Duration) {}}}
		_, _ = device.PCR15()
		_, _ = device.ChooseTemplate()
		_, _ = device.Certificate(exchange.EKP256)
		_, err := device.Identity(exchange.EKP256, "0123")
		require.Error(t, err)
		_, err = device.Seal(secret.New([]byte("data")), []uint{7})
		require.Error(t, err)
	})
}

func FuzzTrimDER(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		der, err := trimDER(data)
		if err != nil {
			return
		}
		require.Equal(t, data[:len(der)], der)
		again, err := trimDER(append(der[:len(der):len(der)], 0xff))
		require.NoError(t, err)
		require.Equal(t, der, again)
	})
}

// FuzzSealed parses what a file may hold in the place of a sealed object.
func FuzzSealed(f *testing.F) {
	public := tpm2.Marshal(sealedTemplate(make([]byte, 32)))
	f.Add(append(public[:len(public)-2:len(public)-2], append([]byte{0, 32}, make([]byte, 32)...)...), byte(7))
	f.Add(public, byte(7))
	f.Fuzz(func(t *testing.T, public []byte, pcr byte) {
		parent := append([]byte{0, 0x0b}, make([]byte, 32)...)
		sealed := Sealed{Parent: parent, PCRs: []uint{uint(pcr)}, Public: public, Private: []byte{1}}
		name, err := sealed.Name()
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.Equal(t, append([]byte{0, 0x0b}, sum(public)...), name)
	})
}

func sum(data []byte) []byte {
	digest := sha256.Sum256(data)
	return digest[:]
}
