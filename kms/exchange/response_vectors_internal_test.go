package exchange

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
)

var updateResponses = flag.Bool("update-responses", false, "write testdata/responses.json anew")

const responsesFile = "testdata/responses.json"

// responseVector is an answer and what a guest must make of it. Byte strings
// are base64.
type responseVector struct {
	Name string
	// Class is ok, service-key, signature, open or malformed.
	Class     string
	Recipient []byte // private key
	Pin       []byte // fingerprint
	Statement []byte
	Response  []byte
	Signature []byte
	// ServiceKey is a SubjectPublicKeyInfo.
	ServiceKey []byte
	// Message is what was sealed, without its padding, for class ok.
	Message []byte `json:",omitempty"`
}

func (v *responseVector) class(t *testing.T) (string, *Release) {
	t.Helper()
	err := VerifyResponse([][32]byte{[32]byte(v.Pin)}, v.ServiceKey, v.Statement, v.Response, v.Signature)
	if err != nil {
		return classOf(t, err), nil
	}
	private, err := kem().NewPrivateKey(v.Recipient)
	require.NoError(t, err)
	release, err := (&Recipient{private}).OpenRelease(v.Statement, v.Response)
	if err != nil {
		return classOf(t, err), nil
	}
	return "ok", release
}

func classOf(t *testing.T, err error) string {
	t.Helper()
	switch {
	case errors.Is(err, ErrServiceKey):
		return "service-key"
	case errors.Is(err, ErrSignature):
		return "signature"
	case errors.Is(err, ErrOpen):
		return "open"
	default:
		require.ErrorIs(t, err, ErrMalformed)
		return "malformed"
	}
}

func TestResponseVectors(t *testing.T) {
	if *updateResponses {
		writeResponseVectors(t)
	}
	text, err := os.ReadFile(responsesFile)
	require.NoError(t, err)
	var vectors []responseVector
	require.NoError(t, json.Unmarshal(text, &vectors))
	classes := make(map[string]bool)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			class, release := v.class(t)
			require.Equal(t, v.Class, class)
			classes[class] = true
			if class != "ok" {
				return
			}
			message := marshaled(t, release)
			assert.Equal(t, v.Message, message[:len(v.Message)])
			assert.True(t, allZero(message[len(v.Message):]))
		})
	}
	assert.Len(t, classes, 5, "every class of failure")
}

// responder signs what a test seals.
type responder struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	spki []byte
	to   hpke.PrivateKey
}

func newResponder(t *testing.T) *responder {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	to, err := kem().GenerateKey()
	require.NoError(t, err)
	return &responder{t, key, spki, to}
}

// vector seals and signs a message under a release id.
func (r *responder) vector(name, class string, message []byte, id [32]byte) responseVector {
	r.t.Helper()
	statement := []byte("any bytes serve as a statement here")
	sealed, err := hpke.Seal(r.to.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), sealInfo(statement, id), message)
	require.NoError(r.t, err)
	response, err := marshalResponse(id, sealed)
	require.NoError(r.t, err)
	v := responseVector{Name: name, Class: class, Statement: statement, ServiceKey: r.spki}
	pin := Fingerprint(r.spki)
	v.Pin = pin[:]
	v.Recipient, err = r.to.Bytes()
	require.NoError(r.t, err)
	r.answer(&v, response)
	return v
}

func (r *responder) answer(v *responseVector, response []byte) {
	r.t.Helper()
	var err error
	v.Response = response
	v.Signature, err = SignResponse(r.key, v.Statement, response)
	require.NoError(r.t, err)
}

func writeResponseVectors(t *testing.T) {
	t.Helper()
	r, other := newResponder(t), newResponder(t)
	release := &Release{ID: [32]byte{1, 2, 3}, Entry: []byte("a signed audit entry"), Secrets: []ReleasedSecret{
		{Volume: "vol-a", UUID: "8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a02", Version: 3, Identity: [32]byte{4}, Key: secret.Copy([]byte("key of vol-a")), Reencrypt: &Reencryption{From: [32]byte{6}, Begun: true, Rate: 50 << 20, Lose: []LUKSSlot{{ID: 31, Mark: "5f1a03c2"}}}},
		{Volume: "vol-b", UUID: "8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a03", Version: 1, Resume: [16]byte{5}, Key: secret.Copy([]byte("key of vol-b")), Recovery: secret.Copy([]byte("cccccccc-bbbbbbbb")), RecoveryVersion: 1},
	}}
	message := marshaled(t, release)
	ok := r.vector("two volumes", "ok", message, release.ID)
	used := len(message)
	for used > 0 && message[used-1] == 0 {
		used--
	}
	ok.Message = message[:used]

	unpinned := other.vector("a key that is not pinned", "service-key", message, release.ID)
	unpinned.Pin = ok.Pin
	unsigned := r.vector("signed by another key than it carries", "signature", message, release.ID)
	unsigned.ServiceKey, unsigned.Pin = other.spki, other.vector("", "", message, release.ID).Pin
	diverted := r.vector("sealed to another recipient", "open", message, release.ID)
	diverted.Recipient = other.vector("", "", message, release.ID).Recipient
	elsewhere := r.vector("sealed for another statement", "open", message, release.ID)
	elsewhere.Statement = []byte("another statement")
	r.answer(&elsewhere, elsewhere.Response)
	longer := r.vector("a byte behind it", "malformed", message, release.ID)
	r.answer(&longer, append(longer.Response, 0))
	dirty := append([]byte(nil), message...)
	dirty[len(dirty)-1] = 1
	vectors := []responseVector{
		ok, unpinned, unsigned, diverted, elsewhere, longer,
		r.vector("padding that is not zero", "malformed", dirty, release.ID),
		r.vector("padded to another length", "malformed", message[:len(message)-1], release.ID),
		r.vector("another release id inside", "malformed", message, [32]byte{9}),
	}
	text, err := json.MarshalIndent(vectors, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(responsesFile, append(text, '\n'), 0o600))
}
