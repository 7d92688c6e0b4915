package quorum

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum/shamir"
	"keywright.dev/kms/secret"
)

// The payload is what is split:
//
//	version (1) ‖ blind (32) ‖ length of context (2) ‖ context ‖ key (32) ‖ check value (16)
const (
	payloadV1    = 1
	blindSize    = 32
	checkSize    = 16
	payloadFixed = 1 + blindSize + 2 + root.KeySize + checkSize

	checkLabelV1 = "keywright/quorum-check/v1\x00"
)

// CheckValue tells keys apart without telling anything about them: 32 hex digits
// of an HKDF over key and context. Who compares two knows whether they are of
// one key.
func CheckValue(key secret.Bytes, context []byte) (string, error) {
	value, err := checkValue(key, context)
	return hex.EncodeToString(value), err
}

func checkValue(key secret.Bytes, context []byte) ([]byte, error) {
	value, err := hkdf.Key(sha256.New, key.Expose(), nil, checkLabelV1+string(context), checkSize)
	if err != nil {
		return nil, fmt.Errorf("deriving the check value of a key: %w", err)
	}
	return value, nil
}

// newPayload lays out what is split. The blind keeps the commitment to it from
// telling anything, whatever the key.
func newPayload(random io.Reader, key secret.Bytes, context []byte) (secret.Bytes, error) {
	blind, err := secret.Random(random, blindSize)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer blind.Wipe()
	check, err := checkValue(key, context)
	if err != nil {
		return secret.Bytes{}, err
	}
	payload := make([]byte, 0, payloadFixed+len(context)) // so that no copy is left behind
	payload = append(payload, payloadV1)
	payload = append(payload, blind.Expose()...)
	payload = binary.BigEndian.AppendUint16(payload, uint16(len(context)))
	payload = append(payload, context...)
	payload = append(payload, key.Expose()...)
	return secret.New(append(payload, check...)), nil
}

// openPayload returns the key in a payload that shares combined to, where it is
// what the set commits to, for the set's context, and has its check value.
func openPayload(payload secret.Bytes, set Set) (secret.Bytes, error) {
	data := payload.Expose()
	commitment := commitmentTo(data)
	if subtle.ConstantTimeCompare(commitment[:], set.commitment[:]) != 1 {
		return secret.Bytes{}, fmt.Errorf("%w: the shares combine to something else than was split", root.ErrDoesNotOpen)
	}
	if len(data) != payloadFixed+len(set.Context) || data[0] != payloadV1 {
		return secret.Bytes{}, fmt.Errorf("%w: what was split has another form or version", root.ErrDoesNotOpen)
	}
	rest := data[1+blindSize:]
	size, rest := int(binary.BigEndian.Uint16(rest)), rest[2:]
	if size != len(set.Context) || !bytes.Equal(rest[:size], set.Context) {
		return secret.Bytes{}, fmt.Errorf("%w: what was split is bound to another context", root.ErrDoesNotOpen)
	}
	key := secret.Copy(rest[size : size+root.KeySize])
	check, err := checkValue(key, set.Context)
	if err == nil && subtle.ConstantTimeCompare(check, rest[size+root.KeySize:]) != 1 {
		err = fmt.Errorf("%w: the key is not that of its check value", root.ErrDoesNotOpen)
	}
	if err != nil {
		key.Wipe()
		return secret.Bytes{}, err
	}
	return key, nil
}

// dealt is a set with its shares, as custodians get them.
type dealt struct {
	set    Set
	shares []secret.Bytes
}

func (d dealt) wipe() {
	for _, s := range d.shares {
		s.Wipe()
	}
}

func (r *Root) deal(key secret.Bytes, context []byte) (dealt, error) {
	if key.Len() != root.KeySize {
		return dealt{}, fmt.Errorf("the key has %d bytes instead of %d", key.Len(), root.KeySize)
	}
	set := Set{Quorum: r.name, Context: bytes.Clone(context), Threshold: r.threshold, Custodians: r.Custodians()}
	if err := set.check(); err != nil {
		return dealt{}, err
	}
	payload, err := newPayload(r.random, key, context)
	if err != nil {
		return dealt{}, err
	}
	defer payload.Wipe()
	return split(r.random, payload, set)
}

// split completes set with the digests of what it splits payload into.
func split(random io.Reader, payload secret.Bytes, set Set) (dealt, error) {
	parts, err := shamir.Split(random, payload, set.Threshold, len(set.Custodians))
	if err != nil {
		return dealt{}, err
	}
	set.commitment = commitmentTo(payload.Expose())
	for _, p := range parts {
		defer p.Value.Wipe()
		set.digests = append(set.digests, digestOf(int(p.Number), p.Value.Expose()))
	}
	if err := set.encode(); err != nil {
		return dealt{}, err
	}
	d := dealt{set: set}
	for _, p := range parts {
		d.shares = append(d.shares, encodeShare(set, int(p.Number), p.Value))
	}
	return d, nil
}
