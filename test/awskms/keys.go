package awskms

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
)

// State is that of a key in one region.
type State string

// The states that a test can bring a key to.
const (
	Enabled         State = "Enabled"
	Disabled        State = "Disabled"
	PendingDeletion State = "PendingDeletion"
	PendingImport   State = "PendingImport"
	Unavailable     State = "Unavailable"
)

// regional is a key as one region has it.
type regional struct {
	arn   string
	state State
	usage string
	*material
}

// material is what the replicas of a key share.
type material struct {
	id       string
	versions [][]byte
}

// AddKey makes a key and returns its ARN. The id of a multi-Region key begins with mrk-.
func (s *Server) AddKey(t testing.TB, region string, multiRegion bool) string {
	h := randomHex(t, 16)
	id := strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
	if multiRegion {
		id = "mrk-" + h
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.place(region, &material{id: id, versions: [][]byte{[]byte(randomHex(t, 16))}})
}

func (s *Server) place(region string, m *material) string {
	arn := "arn:aws:kms:" + region + ":" + Account + ":key/" + m.id
	s.keys[arn] = &regional{arn: arn, state: Enabled, usage: "ENCRYPT_DECRYPT", material: m}
	return arn
}

// Replicate makes a replica of a multi-Region key and returns its ARN.
func (s *Server) Replicate(arn, region string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.place(region, s.keys[arn].material)
}

// Rotate gives a key new material. What was encrypted with the old still decrypts.
func (s *Server) Rotate(t testing.TB, arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[arn].versions = append(s.keys[arn].versions, []byte(randomHex(t, 16)))
}

// SetState brings a key to a state, in its region.
func (s *Server) SetState(arn string, state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[arn].state = state
}

// SetUsage makes a key one of another kind, for example SIGN_VERIFY.
func (s *Server) SetUsage(arn, usage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[arn].usage = usage
}

// Delete removes a key for good.
func (s *Server) Delete(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, arn)
}

// usable refuses a key that is in no state to encrypt or decrypt.
func (k *regional) usable() *refusal {
	switch {
	case k.state == Disabled:
		return refuse("DisabledException", k.arn+" is disabled.")
	case k.state == PendingDeletion:
		return refuse("KMSInvalidStateException", k.arn+" is pending deletion.")
	case k.state == PendingImport:
		return refuse("KMSInvalidStateException", k.arn+" is pending import.")
	case k.state == Unavailable:
		return refuse("KMSInvalidStateException", k.arn+" is unavailable.")
	case k.usage != "ENCRYPT_DECRYPT":
		return refuse("InvalidKeyUsageException", k.arn+" key usage is "+k.usage+" which is not valid for this operation.")
	}
	return nil
}

// A blob is magic, the length of the key's id, the id, the number of the version,
// then nonce, ciphertext and tag.
const magic = "\x01\x02\x02\x00"

func (m *material) header(version int) []byte {
	h := append([]byte(magic), byte(len(m.id)))
	h = append(h, m.id...)
	return binary.BigEndian.AppendUint32(h, uint32(version))
}

func (m *material) encrypt(plaintext []byte, context map[string]string) ([]byte, error) {
	newest := len(m.versions) - 1
	aead, err := gcm(m.versions[newest])
	if err != nil {
		return nil, err
	}
	header := m.header(newest)
	return aead.Seal(header, nil, plaintext, additional(header, context)), nil
}

// decrypt returns false where the blob is not of this key and context.
func (m *material) decrypt(blob []byte, context map[string]string) ([]byte, bool) {
	for version, key := range m.versions {
		header := m.header(version)
		aead, err := gcm(key)
		if err != nil || !bytes.HasPrefix(blob, header) {
			continue
		}
		plaintext, err := aead.Open(nil, nil, blob[len(header):], additional(header, context))
		return plaintext, err == nil
	}
	return nil, false
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// additional is header and context; JSON writes a map in the order of its keys.
func additional(header []byte, context map[string]string) []byte {
	text, err := json.Marshal(context)
	if err != nil {
		panic(err) // a map of strings always marshals
	}
	return append(bytes.Clone(header), text...)
}

// ownerOf returns the id of the key that a blob names.
func ownerOf(blob []byte) string {
	rest, ok := bytes.CutPrefix(blob, []byte(magic))
	if !ok || len(rest) == 0 || len(rest) <= int(rest[0]) {
		return ""
	}
	return string(rest[1 : 1+int(rest[0])])
}
