package attest_test

import (
	"crypto/sha256"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// Whatever a log holds, it is refused with a code or its claims determine its
// PCRs.
func FuzzLog(f *testing.F) {
	for _, name := range []string{"ovmf-uki", "ovmf-kernel", "seabios-kernel", "grub-a", "grub-forged-labels"} {
		f.Add(readLog(f, name))
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		pcrs, measurement, platform, state, err := attest.ReadLog(log)
		if err != nil {
			var refused *attest.Error
			require.ErrorAs(t, err, &refused)
			return
		}
		requireDetermined(t, pcrs, measurement, platform, state)
	})
}

// requireDetermined demands that claims are sound and say all of the PCRs.
func requireDetermined(t *testing.T, pcrs exchange.PCRValues, measurement, platform, state []claims.Claim) {
	t.Helper()
	var boot attest.Boot
	var err error
	boot.Measurement, err = claims.New(claims.Measurement, measurement)
	require.NoError(t, err)
	boot.Platform, err = claims.New(claims.Platform, platform)
	require.NoError(t, err)
	boot.State, err = claims.New(claims.State, state)
	require.NoError(t, err)
	require.Equal(t, pcrs, pcrsOf(t, boot))
}

// What parses as a quote is understood to the last byte.
func FuzzAttested(f *testing.F) {
	f.Add(tpm2.Marshal(newMachine(f).attestation(somePCRs())))
	f.Fuzz(func(t *testing.T, data []byte) {
		again, err := attest.Remarshal(data)
		if err != nil {
			var refused *attest.Error
			require.ErrorAs(t, err, &refused)
			return
		}
		require.Equal(t, data, again)
	})
}

// A signature is verified or refused with a code, whatever its bytes.
func FuzzSignature(f *testing.F) {
	m := newMachine(f)
	good := m.quote(f, somePCRs())
	f.Add(good.Signature)
	f.Fuzz(func(t *testing.T, signature []byte) {
		q := good
		q.Signature = signature
		if _, err := attest.CheckQuote(m.ak(), q, statement()); err != nil {
			var refused *attest.Error
			require.ErrorAs(t, err, &refused)
		}
	})
}

// Random events, half of them with a digest that covers their data: the claims
// still determine the PCRs.
func FuzzEvents(f *testing.F) {
	kinds := []uint32{evNoAction, evSeparator, 5, evEventTag, 8, evIPL, evVariableConfig, evVariableBoot, evBootApplication,
		0x80000006, evEFIAction, 0x80000008, 0x80000009, evVariableBoot2, evAuthority, 1}
	for _, name := range []string{"ovmf-uki", "grub-a"} {
		f.Add(scriptOf(f, name, kinds))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		pcrs, measurement, platform, state, err := attest.ReadLog(joinLog(specID(algSHA256, 32), eventsFrom(script, kinds)))
		if err != nil {
			requireCode(t, attest.LogLocality, err)
			return
		}
		requireDetermined(t, pcrs, measurement, platform, state)
	})
}

// eventsFrom reads events of the form: PCR and cover bit, type, length, data.
func eventsFrom(script []byte, kinds []uint32) []logEvent {
	var events []logEvent
	for len(script) >= 3 && len(events) < 500 {
		pcr, kind := uint32(script[0]&15)%15, kinds[int(script[1])%len(kinds)]
		n := min(int(script[2]), len(script)-3)
		e := digested(pcr, kind, string(script[3:3+n]))
		if script[0]&16 != 0 {
			e.digest[0] ^= 1
		}
		events, script = append(events, e), script[3+n:]
	}
	return events
}

// scriptOf writes the events of a fixture for eventsFrom.
func scriptOf(t testing.TB, name string, kinds []uint32) []byte {
	_, events := splitLog(t, readLog(t, name))
	var script []byte
	for _, e := range events {
		if len(e.data) < 256 {
			kind := slices.Index(kinds, e.kind)
			cover := byte(16)
			if sha256.Sum256(e.data) == e.digest {
				cover = 0
			}
			script = append(script, byte(e.pcr)|cover, byte(kind), byte(len(e.data)))
			script = append(script, e.data...)
		}
	}
	return script
}
