package attest_test

import (
	"crypto"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An event log library of others replays every log as this package does.
func TestReplayAgreesWithGoEventlog(t *testing.T) {
	for _, name := range logNames(t) {
		t.Run(name, func(t *testing.T) {
			log := readLog(t, name)
			values := replay(t, log)
			appraise(t, log)
			var bank []register.MR
			for pcr := range uint(10) {
				value, _ := values.Value(pcr)
				bank = append(bank, register.PCR{Index: int(pcr), Digest: value[:], DigestAlg: crypto.SHA256})
			}
			parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
			require.NoError(t, err)
			events, err := parsed.Verify(bank)
			require.NoError(t, err)
			_, mine := splitLog(t, log)
			assert.Len(t, events, countBelow(mine, 10))
		})
	}
}

func countBelow(events []logEvent, pcr uint32) int {
	n := 0
	for _, e := range events {
		if e.pcr < pcr {
			n++
		}
	}
	return n
}
