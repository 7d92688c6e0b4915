package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/exchange"
)

func somePCRs() exchange.PCRValues {
	var values exchange.PCRValues
	for i := range values {
		values[i] = sha256.Sum256([]byte{byte(i)})
	}
	return values
}

func TestCheckQuoteAccepts(t *testing.T) {
	for name, m := range map[string]*machine{
		"ECDSA on P-256":   newMachine(t),
		"RSASSA 2048":      newRSAMachine(t, 2048, tpm2.TPMAlgRSASSA),
		"RSAPSS with 3072": newRSAMachine(t, 3072, tpm2.TPMAlgRSAPSS),
	} {
		t.Run(name, func(t *testing.T) {
			q, err := attest.CheckQuote(m.ak(), m.quote(t, somePCRs()), statement())
			require.NoError(t, err)
			for _, pcr := range exchange.Selection() {
				value, ok := q.PCR(pcr)
				want := somePCRs()
				expected, _ := want.Value(pcr)
				assert.True(t, ok)
				assert.Equal(t, expected, value)
			}
			_, ok := q.PCR(10)
			assert.False(t, ok, "not covered")
			assert.Equal(t, attest.Counters{ResetCount: 5, RestartCount: 2, Clock: 7000, Safe: true}, q.Counters())
		})
	}
}

// A TPM writes numbers without leading zeros or padded; both must verify.
func TestCheckQuoteAcceptsShortNumbers(t *testing.T) {
	m := newMachine(t)
	for {
		q := m.quote(t, somePCRs())
		if r := q.Signature[6:38]; r[0] == 0 {
			q.Signature = append(append(append([]byte{}, q.Signature[:4]...), 0, 31), q.Signature[7:]...)
			_, err := attest.CheckQuote(m.ak(), q, statement())
			require.NoError(t, err)
			return
		}
	}
}

// Attack 1: evidence that a TPM signed, but not as a quote over these PCRs.
func TestAttack01QuoteOverSomethingElse(t *testing.T) {
	selection := func(hash tpm2.TPMAlgID, bitmap ...byte) tpm2.TPMLPCRSelection {
		return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: hash, PCRSelect: bitmap}}}
	}
	quoteOver := func(a *tpm2.TPMSAttest, s tpm2.TPMLPCRSelection, digest []byte) {
		a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{PCRSelect: s, PCRDigest: tpm2.TPM2BDigest{Buffer: digest}})
	}
	values := somePCRs()
	digest := values.CompositeDigest()
	for name, c := range map[string]struct {
		falsify func(*tpm2.TPMSAttest)
		want    attest.Code
	}{
		"no TPM magic": {func(a *tpm2.TPMSAttest) { a.Magic = 0xff544348 }, attest.QuoteMagic},
		"a certification": {func(a *tpm2.TPMSAttest) {
			a.Type = tpm2.TPMSTAttestCertify
			a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{})
		}, attest.QuoteType},
		"the time": {func(a *tpm2.TPMSAttest) {
			a.Type = tpm2.TPMSTAttestTime
			a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestTime, &tpm2.TPMSTimeAttestInfo{})
		}, attest.QuoteType},
		"no signer":        {func(a *tpm2.TPMSAttest) { a.QualifiedSigner.Buffer = nil }, attest.QuoteSigner},
		"the bare AK Name": {func(a *tpm2.TPMSAttest) { a.QualifiedSigner.Buffer = testName() }, attest.QuoteSigner},
		"a primary of the owner hierarchy": {func(a *tpm2.TPMSAttest) {
			sum := sha256.Sum256(append([]byte{0x40, 0, 0, 1}, testName()...))
			a.QualifiedSigner.Buffer = append([]byte{0, 0x0b}, sum[:]...)
		}, attest.QuoteSigner},
		"another statement": {func(a *tpm2.TPMSAttest) { a.ExtraData.Buffer[0] ^= 1 }, attest.QuoteExtraData},
		"no extraData":      {func(a *tpm2.TPMSAttest) { a.ExtraData.Buffer = nil }, attest.QuoteExtraData},
		"longer extraData":  {func(a *tpm2.TPMSAttest) { a.ExtraData.Buffer = append(a.ExtraData.Buffer, 0) }, attest.QuoteExtraData},
		"no bank":           {func(a *tpm2.TPMSAttest) { quoteOver(a, tpm2.TPMLPCRSelection{}, digest[:]) }, attest.QuoteSelection},
		"no PCRs":           {func(a *tpm2.TPMSAttest) { quoteOver(a, selection(tpm2.TPMAlgSHA256, 0, 0, 0), digest[:]) }, attest.QuoteSelection},
		"a PCR missing":     {func(a *tpm2.TPMSAttest) { quoteOver(a, selection(tpm2.TPMAlgSHA256, 0xfe, 0xfb, 0), digest[:]) }, attest.QuoteSelection},
		"a PCR more":        {func(a *tpm2.TPMSAttest) { quoteOver(a, selection(tpm2.TPMAlgSHA256, 0xff, 0xff, 0), digest[:]) }, attest.QuoteSelection},
		"SHA-1 bank":        {func(a *tpm2.TPMSAttest) { quoteOver(a, selection(tpm2.TPMAlgSHA1, 0xff, 0xfb, 0), digest[:]) }, attest.QuoteSelection},
		"a longer bitmap":   {func(a *tpm2.TPMSAttest) { quoteOver(a, selection(tpm2.TPMAlgSHA256, 0xff, 0xfb, 0, 0), digest[:]) }, attest.QuoteSelection},
		"two banks": {func(a *tpm2.TPMSAttest) {
			both := selection(tpm2.TPMAlgSHA256, 0xff, 0xfb, 0)
			both.PCRSelections = append(both.PCRSelections, selection(tpm2.TPMAlgSHA1, 1, 0, 0).PCRSelections...)
			quoteOver(a, both, digest[:])
		}, attest.QuoteSelection},
		"other PCR values": {func(a *tpm2.TPMSAttest) { quoteOver(a, exchange.SelectionList(), make([]byte, 32)) }, attest.QuoteDigest},
		"an empty digest":  {func(a *tpm2.TPMSAttest) { quoteOver(a, exchange.SelectionList(), nil) }, attest.QuoteDigest},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			a := m.attestation(values)
			c.falsify(&a)
			_, err := attest.CheckQuote(m.ak(), m.sign(t, tpm2.Marshal(a), values), statement())
			requireCode(t, c.want, err)
		})
	}
}

// Attack 1: PCR values that the signature does not cover.
func TestAttack01PCRValuesOutsideTheQuote(t *testing.T) {
	m := newMachine(t)
	q := m.quote(t, somePCRs())
	for i := range q.PCRs {
		changed := q
		changed.PCRs[i][0] ^= 1
		_, err := attest.CheckQuote(m.ak(), changed, statement())
		requireCode(t, attest.QuoteDigest, err)
	}
}

func TestCheckQuoteRefusesMalformedBytes(t *testing.T) {
	m := newMachine(t)
	whole := tpm2.Marshal(m.attestation(somePCRs()))
	for n := range whole {
		_, err := attest.CheckQuote(m.ak(), m.sign(t, whole[:n], somePCRs()), statement())
		requireCode(t, attest.QuoteMalformed, err)
	}
	unsafe := bytes.Clone(whole)
	unsafe[6+36+34+16] = 2 // TPMI_YES_NO
	banks := bytes.Clone(whole)
	banks[6+36+34+17+8] = 0xff
	for name, attested := range map[string][]byte{
		"bytes follow":       append(bytes.Clone(whole), 0),
		"neither yes nor no": unsafe,
		"too many banks":     banks,
	} {
		_, err := attest.CheckQuote(m.ak(), m.sign(t, attested, somePCRs()), statement())
		t.Run(name, func(t *testing.T) { requireCode(t, attest.QuoteMalformed, err) })
	}
	_, err := attest.CheckQuote(m.ak(), m.sign(t, make([]byte, 1025), somePCRs()), statement())
	requireCode(t, attest.QuoteSize, err)
}

func TestCheckQuoteRefusesSignatures(t *testing.T) {
	ecc, rsaKey := newMachine(t), newRSAMachine(t, 2048, tpm2.TPMAlgRSASSA)
	good := ecc.quote(t, somePCRs())
	rsaGood := rsaKey.quote(t, somePCRs())
	with := func(q attest.Quote, at int, value byte) attest.Quote {
		q.Signature = bytes.Clone(q.Signature)
		q.Signature[at] = value
		return q
	}
	more := func(q attest.Quote) attest.Quote {
		q.Signature = append(bytes.Clone(q.Signature), 0)
		return q
	}
	cut := func(q attest.Quote, n int) attest.Quote {
		q.Signature = q.Signature[:n]
		return q
	}
	long := good
	long.Signature = append(append(append([]byte{}, good.Signature[:4]...), 0, 33, 0), good.Signature[6:]...)
	huge := good
	huge.Signature = make([]byte, 1025)
	for name, c := range map[string]struct {
		m    *machine
		q    attest.Quote
		want attest.Code
	}{
		"another machine's":         {newMachine(t), good, attest.QuoteSignature},
		"altered":                   {ecc, with(good, 20, good.Signature[20]^1), attest.QuoteSignature},
		"RSA scheme for an ECC key": {ecc, with(good, 1, 0x14), attest.QuoteSignature},
		"ECC scheme for an RSA key": {rsaKey, with(rsaGood, 1, 0x18), attest.QuoteSignature},
		"PSS said, PKCS#1 signed":   {rsaKey, with(rsaGood, 1, 0x16), attest.QuoteSignature},
		"RSA altered":               {rsaKey, with(rsaGood, 20, rsaGood.Signature[20]^1), attest.QuoteSignature},
		"hash other than SHA-256":   {ecc, with(good, 3, 0x04), attest.QuoteSignature},
		"nothing":                   {ecc, cut(good, 0), attest.QuoteMalformed},
		"cut off":                   {ecc, cut(good, 40), attest.QuoteMalformed},
		"RSA cut off":               {rsaKey, cut(rsaGood, 40), attest.QuoteMalformed},
		"bytes follow":              {ecc, more(good), attest.QuoteMalformed},
		"bytes follow RSA":          {rsaKey, more(rsaGood), attest.QuoteMalformed},
		"number too long":           {ecc, long, attest.QuoteMalformed},
		"huge":                      {ecc, huge, attest.QuoteSize},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := attest.CheckQuote(c.m.ak(), c.q, statement())
			requireCode(t, c.want, err)
		})
	}
}

func TestCheckQuoteRefusesKeys(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	q := newMachine(t).quote(t, somePCRs())
	for name, ak := range map[string]attest.AK{
		"P-384":     {Name: testName(), Key: p384.Public()},
		"Ed25519":   {Name: testName(), Key: edwards.Public()},
		"short RSA": newRSAMachine(t, 1024, tpm2.TPMAlgRSASSA).ak(),
		"no key":    {Name: testName()},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := attest.CheckQuote(ak, q, statement())
			requireCode(t, attest.QuoteKey, err)
		})
	}
}
