//go:build integration

package tpm_test

import (
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/swtpm"
)

// BenchmarkQuote measures the TPM's part of a boot: EK, AK, PCRs, quote and the
// extension of PCR 15. The ratios compare it, in the same run, with go-tpm used
// directly: "ratio" with an equally salted session and none of our checks,
// "ratio-unprotected" with no session, which any interposer can lie to.
func BenchmarkQuote(b *testing.B) {
	for _, template := range exchange.EKTemplates() {
		b.Run(string(template), func(b *testing.B) {
			emulated := swtpm.New(b)
			device := tpm.New(emulated)
			var ours, salted, unprotected time.Duration
			for b.Loop() {
				ours += timed(func() { boot(b, device, template) })
				salted += timed(func() { bareBoot(b, emulated, template, true) })
				unprotected += timed(func() { bareBoot(b, emulated, template, false) })
			}
			b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "µs/boot")
			b.ReportMetric(float64(ours)/float64(salted), "ratio")
			b.ReportMetric(float64(ours)/float64(unprotected), "ratio-unprotected")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func timed(work func()) time.Duration {
	start := time.Now()
	work()
	return time.Since(start)
}

func boot(b *testing.B, device *tpm.Device, template exchange.EKTemplate) {
	id, err := device.Identity(template, "")
	require.NoError(b, err)
	_, err = id.Quote([32]byte{})
	require.NoError(b, err)
	require.NoError(b, id.ExtendPCR15(exchange.NoReleaseEvent()))
	require.NoError(b, id.Close())
}

func bareBoot(b *testing.B, t transport.TPM, template exchange.EKTemplate, salted bool) {
	ekTemplate, err := template.Template()
	require.NoError(b, err)
	akTemplate, err := exchange.AKTemplate()
	require.NoError(b, err)
	ek := barePrimary(b, t, ekTemplate)
	auth := tpm2.PasswordAuth(nil)
	var audit []tpm2.Session
	if salted {
		public, err := ek.OutPublic.Contents()
		require.NoError(b, err)
		session, flush, err := tpm2.HMACSession(t, tpm2.TPMAlgSHA256, 32, tpm2.Salted(ek.ObjectHandle, *public), tpm2.Audit())
		require.NoError(b, err)
		auth, audit = session, []tpm2.Session{session}
		defer func() { require.NoError(b, flush()) }()
	}
	bareFlush(b, t, ek.ObjectHandle)
	ak := barePrimary(b, t, akTemplate)
	defer bareFlush(b, t, ak.ObjectHandle)
	bareQuote(b, t, tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: auth}, audit)
	pcr := tpm2.TPMHandle(15)
	event := exchange.NoReleaseEvent()
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: pcr, Name: tpm2.HandleName(pcr), Auth: auth},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: event[:]}}},
	}.Execute(t)
	require.NoError(b, err)
}

func bareQuote(b *testing.B, t transport.TPM, ak tpm2.AuthHandle, audit []tpm2.Session) {
	for _, half := range [][]uint{exchange.Selection()[:8], exchange.Selection()[8:]} {
		_, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
			Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(half...),
		}}}}.Execute(t, audit...)
		require.NoError(b, err)
	}
	_, err := tpm2.Quote{
		SignHandle: ak,
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:  exchange.SelectionList(),
	}.Execute(t)
	require.NoError(b, err)
}

func barePrimary(b *testing.B, t transport.TPM, template tpm2.TPMTPublic) *tpm2.CreatePrimaryResponse {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: hierarchy(tpm2.TPMRHEndorsement), InPublic: tpm2.New2B(template),
	}.Execute(t)
	require.NoError(b, err)
	return rsp
}

func bareFlush(b *testing.B, t transport.TPM, handle tpm2.TPMHandle) {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(t)
	require.NoError(b, err)
}
