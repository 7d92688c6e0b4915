package exchange_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
)

// recordedKey is a primary key that a TPM made from one of our templates.
type recordedKey struct {
	Kind   string `json:"kind"`   // an EK template, or "ak"
	Public string `json:"public"` // TPMT_PUBLIC
	Name   string `json:"name"`   // as the TPM gave it
}

func recordedKeys(tb testing.TB) map[string]recordedKey {
	tb.Helper()
	text, err := os.ReadFile("testdata/tpm-keys.json")
	require.NoError(tb, err)
	var list []recordedKey
	require.NoError(tb, json.Unmarshal(text, &list))
	keys := map[string]recordedKey{}
	for _, key := range list {
		keys[key.Kind] = key
	}
	require.Len(tb, keys, 4)
	return keys
}

func (k recordedKey) public(tb testing.TB) []byte {
	tb.Helper()
	public, err := hex.DecodeString(k.Public)
	require.NoError(tb, err)
	return public
}

func TestTemplatesAreThoseOfTheProfile(t *testing.T) {
	rsa2048, err := exchange.EKRSA2048.Template()
	require.NoError(t, err)
	assert.Equal(t, tpm2.Marshal(tpm2.RSAEKTemplate), tpm2.Marshal(rsa2048))
	p256, err := exchange.EKP256.Template()
	require.NoError(t, err)
	assert.Equal(t, tpm2.Marshal(tpm2.ECCEKTemplate), tpm2.Marshal(p256))

	p384, err := exchange.EKP384.Template()
	require.NoError(t, err)
	want := tpm2.ECCEKTemplate
	want.NameAlg = tpm2.TPMAlgSHA384
	want.ObjectAttributes.UserWithAuth = true
	want.AuthPolicy.Buffer = policyB384(t)
	want.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		CurveID: tpm2.TPMECCNistP384,
	})
	want.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	assert.Equal(t, tpm2.Marshal(want), tpm2.Marshal(p384))
}

// policyB384 derives PolicyB: PolicySecret(endorsement) or an authorization by
// the policy in NV index 0x01c07f02.
func policyB384(t *testing.T) []byte {
	policyA, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA384)
	require.NoError(t, err)
	require.NoError(t, tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement}.Update(policyA))
	a := policyA.Hash().Digest
	index, err := tpm2.NVName(&tpm2.TPMSNVPublic{
		NVIndex: 0x01c07f02,
		NameAlg: tpm2.TPMAlgSHA384,
		Attributes: tpm2.TPMANV{
			PolicyWrite: true, WriteAll: true, PPRead: true, OwnerRead: true, AuthRead: true,
			PolicyRead: true, NoDA: true, Written: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: a},
		DataSize:   50,
	})
	require.NoError(t, err)
	const policyAuthorizeNV, policyOR = "\x00\x00\x01\x92", "\x00\x00\x01\x71"
	zero := make([]byte, sha512.Size384)
	c := sha512.Sum384(append(append(zero, policyAuthorizeNV...), index.Buffer...))
	b := sha512.Sum384(append(append(append(zero, policyOR...), a...), c[:]...))
	return b[:]
}

func TestAKTemplateIsARestrictedSigningKey(t *testing.T) {
	template, err := exchange.AKTemplate()
	require.NoError(t, err)
	assert.Equal(t, tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true,
		NoDA: true, Restricted: true, SignEncrypt: true,
	}, template.ObjectAttributes)
	assert.Empty(t, template.AuthPolicy.Buffer)
	parameters, err := template.Parameters.ECCDetail()
	require.NoError(t, err)
	assert.Equal(t, tpm2.TPMECCNistP256, parameters.CurveID)
	assert.Equal(t, tpm2.TPMAlgECDSA, parameters.Scheme.Scheme)
	scheme, err := parameters.Scheme.Details.ECDSA()
	require.NoError(t, err)
	assert.Equal(t, tpm2.TPMAlgSHA256, scheme.HashAlg)
	unique, err := template.Unique.ECC()
	require.NoError(t, err)
	assert.Equal(t, "1c9488ced6f8e314e1a6c76084a5708c0919092b74806ed3443db9103448d36d", hex.EncodeToString(unique.X.Buffer))
	assert.Equal(t, make([]byte, 32), unique.Y.Buffer)
}

func TestCheckEK(t *testing.T) {
	machines := map[exchange.EKTemplate]string{
		exchange.EKRSA2048: "c78d8074d900775c95c44c1e7982549e280a6d75152e5ef11b2b32e9cc0c7041",
		exchange.EKP256:    "c8578491239d24a76fb6114904c4cf87092e0f95203c6832978db9f068953660",
		exchange.EKP384:    "030ed8393b37fce9c8ae41efea5659f4d65922bf36a43a159a5c5a7a011ae37d",
	}
	keys := recordedKeys(t)
	for _, template := range exchange.EKTemplates() {
		recorded := keys[string(template)]
		ek, err := exchange.CheckEK(recorded.public(t))
		require.NoError(t, err)
		assert.Equal(t, template, ek.Template)
		assert.Equal(t, recorded.Public, hex.EncodeToString(ek.Public))
		assert.Equal(t, recorded.Name, hex.EncodeToString(ek.Name))
		assert.Equal(t, machines[template], ek.MachineID())
		assert.Equal(t, machines[template][:8], exchange.ShortID(ek.MachineID()))
	}
}

func TestCheckAK(t *testing.T) {
	recorded := recordedKeys(t)["ak"]
	ak, err := exchange.CheckAK(recorded.public(t))
	require.NoError(t, err)
	assert.Equal(t, recorded.Public, hex.EncodeToString(ak.Public))
	assert.Equal(t, recorded.Name, hex.EncodeToString(ak.Name))
	assert.NotNil(t, ak.Key)
}

func TestTheCheckedKeyIsACopy(t *testing.T) {
	public := recordedKeys(t)["ak"].public(t)
	ak, err := exchange.CheckAK(public)
	require.NoError(t, err)
	clear(public)
	assert.NotEqual(t, public, ak.Public)
}

// TestAttack06KeysOfOtherMakingAreRefused: a key that could sign made-up
// evidence, or be moved to another TPM, differs from the template in its bytes.
func TestAttack06KeysOfOtherMakingAreRefused(t *testing.T) {
	const attributes, authPolicySize = 4, 8
	ak := recordedKeys(t)["ak"].public(t)
	attack := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(ak)) }
	for name, public := range map[string][]byte{
		"empty":                   nil,
		"not restricted":          attack(func(b []byte) []byte { b[attributes+1] &^= 0x01; return b }),
		"not fixedTPM":            attack(func(b []byte) []byte { b[attributes+3] &^= 0x02; return b }),
		"not fixedParent":         attack(func(b []byte) []byte { b[attributes+3] &^= 0x10; return b }),
		"not sensitiveDataOrigin": attack(func(b []byte) []byte { b[attributes+3] &^= 0x20; return b }),
		"decrypts too":            attack(func(b []byte) []byte { b[attributes+1] |= 0x02; return b }),
		"reserved bit":            attack(func(b []byte) []byte { b[attributes] |= 0x80; return b }),
		"policy":                  attack(func(b []byte) []byte { b[authPolicySize+1] = 1; return b }),
		"trailing byte":           attack(func(b []byte) []byte { return append(b, 0) }),
		"cut off":                 attack(func(b []byte) []byte { return b[:len(b)-1] }),
		"off the curve":           attack(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }),
		"no point":                attack(func(b []byte) []byte { clear(b[len(b)-66:]); return b }),
		"a TPM2B":                 append([]byte{0, byte(len(ak))}, ak...),
		"an endorsement key":      recordedKeys(t)["ecc-nist-p256"].public(t),
	} {
		_, err := exchange.CheckAK(public)
		assert.ErrorIs(t, err, exchange.ErrTemplate, name)
	}
}

func TestCheckEKRefusesEveryOtherByte(t *testing.T) {
	for _, template := range exchange.EKTemplates() {
		public := recordedKeys(t)[string(template)].public(t)
		standard, err := template.Template()
		require.NoError(t, err)
		fixed := tpm2.Marshal(standard)
		for i := range fixed {
			if i >= len(public) || fixed[i] != public[i] {
				break // the unique field begins
			}
			changed := bytes.Clone(public)
			changed[i] ^= 1
			_, err := exchange.CheckEK(changed)
			require.ErrorIs(t, err, exchange.ErrTemplate, "%s, byte %d", template, i)
		}
		_, err = exchange.CheckEK(append(bytes.Clone(public), 0))
		require.ErrorIs(t, err, exchange.ErrTemplate)
		_, err = exchange.CheckEK(public[:len(public)-1])
		require.ErrorIs(t, err, exchange.ErrTemplate)
	}
}

func TestCheckEKRefusesWeakModuli(t *testing.T) {
	public := recordedKeys(t)[string(exchange.EKRSA2048)].public(t)
	even := bytes.Clone(public)
	even[len(even)-1] &^= 1
	short := bytes.Clone(public)
	short[len(short)-256] = 0
	for _, changed := range [][]byte{even, short} {
		_, err := exchange.CheckEK(changed)
		require.ErrorIs(t, err, exchange.ErrTemplate)
	}
}

func TestParseEKTemplate(t *testing.T) {
	for _, template := range exchange.EKTemplates() {
		parsed, err := exchange.ParseEKTemplate(string(template))
		require.NoError(t, err)
		assert.Equal(t, template, parsed)
		assert.NotZero(t, template.CertificateIndex())
	}
	_, err := exchange.ParseEKTemplate("rsa-1024")
	require.ErrorContains(t, err, "rsa-1024")
	_, err = exchange.EKTemplate("rsa-1024").Template()
	require.ErrorIs(t, err, exchange.ErrTemplate)
	assert.Zero(t, exchange.EKTemplate("rsa-1024").CertificateIndex())
}

func FuzzCheckEK(f *testing.F) {
	f.Fuzz(func(t *testing.T, public []byte) {
		ek, err := exchange.CheckEK(public)
		if err != nil {
			require.ErrorIs(t, err, exchange.ErrTemplate)
			return
		}
		require.Equal(t, public, ek.Public)
		sameAsGoTPM(t, public, ek.Name)
		switch key := ek.Key.(type) {
		case *rsa.PublicKey:
			require.Equal(t, 2048, key.N.BitLen())
		case *ecdsa.PublicKey:
			_, err := key.ECDH()
			require.NoError(t, err)
		}
	})
}

func FuzzCheckAK(f *testing.F) {
	f.Fuzz(func(t *testing.T, public []byte) {
		ak, err := exchange.CheckAK(public)
		if err != nil {
			require.ErrorIs(t, err, exchange.ErrTemplate)
			return
		}
		require.Equal(t, public, ak.Public)
		sameAsGoTPM(t, public, ak.Name)
	})
}

// sameAsGoTPM demands that a parser of all of TPMT_PUBLIC reads and writes the
// same bytes and gives them the same Name.
func sameAsGoTPM(t *testing.T, public, name []byte) {
	parsed, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	require.NoError(t, err)
	require.Equal(t, public, tpm2.Marshal(parsed))
	want, err := tpm2.ObjectName(parsed)
	require.NoError(t, err)
	require.Equal(t, want.Buffer, name)
}
