package attest_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
)

// longLog is the largest recorded log, repeated in PCR 8 to 45 KB and 190
// events: what a busy boot loader leaves behind.
func longLog(tb testing.TB) []byte {
	tb.Helper()
	header, events := splitLog(tb, readLog(tb, "grub-a"))
	for _, e := range events {
		if e.pcr == 8 || len(e.data) > 300 {
			e.pcr = 8
			events = append(events, e)
		}
	}
	log := joinLog(header, events)
	require.Greater(tb, len(log), 40<<10)
	return log
}

// bareVerify returns the time of one ECDSA P-256 verification in nanoseconds,
// measured beside the benchmark.
func bareVerify(b *testing.B, m *machine, q attest.Quote) float64 {
	key, ok := m.key.Public().(*ecdsa.PublicKey)
	require.True(b, ok)
	sum := sha256.Sum256(q.Attested)
	n := int(binary.BigEndian.Uint16(q.Signature[4:]))
	pair := struct{ R, S *big.Int }{new(big.Int).SetBytes(q.Signature[6 : 6+n]), new(big.Int).SetBytes(q.Signature[8+n:])}
	signature, err := asn1.Marshal(pair)
	require.NoError(b, err)
	const runs = 2000
	start := time.Now()
	for range runs {
		if !ecdsa.VerifyASN1(key, sum[:], signature) {
			b.Fatal("does not verify")
		}
	}
	return float64(time.Since(start).Nanoseconds()) / runs
}

func benchmarkVerify(b *testing.B, log []byte, remembered int) {
	m := newMachine(b)
	q := m.quote(b, replay(b, log))
	appraiser := attest.NewAppraiser(remembered)
	bare := bareVerify(b, m, q)
	for b.Loop() {
		quoted, err := attest.CheckQuote(m.ak(), q, statement())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := appraiser.Appraise(quoted, log); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/bare, "x-ecdsa-verify")
}

func BenchmarkVerifyKnownLog(b *testing.B)       { benchmarkVerify(b, readLog(b, "ovmf-secureboot-uki"), 1) }
func BenchmarkVerifyNewLog(b *testing.B)         { benchmarkVerify(b, readLog(b, "ovmf-secureboot-uki"), 0) }
func BenchmarkVerifyKnownLoaderLog(b *testing.B) { benchmarkVerify(b, readLog(b, "grub-a"), 1) }
func BenchmarkVerifyNewLoaderLog(b *testing.B)   { benchmarkVerify(b, readLog(b, "grub-a"), 0) }
func BenchmarkVerifyKnownLongLog(b *testing.B)   { benchmarkVerify(b, longLog(b), 1) }
func BenchmarkVerifyNewLongLog(b *testing.B)     { benchmarkVerify(b, longLog(b), 0) }
