package quorum

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

const (
	rowLabel = "keywright/quorum-row/v1"
	tagLabel = "keywright/quorum-tag/v1\x00"
)

// Row is a wrapper: a set and the share of each custodian, encrypted.
type Row struct {
	Set Set

	sealed [][]byte // an age file each, share 1 first
	tagged []byte   // what the tag is over
	tag    digest
}

// encode writes the row with its tag under key.
func (r *Row) encode(key secret.Bytes) ([]byte, error) {
	var b cryptobyte.Builder
	addField(&b, []byte(rowLabel))
	addField(&b, r.Set.encoded)
	for _, s := range r.sealed {
		addField(&b, s)
	}
	var err error
	if r.tagged, err = b.Bytes(); err != nil {
		return nil, err
	}
	if r.tag, err = r.tagUnder(key); err != nil {
		return nil, err
	}
	wrapped := append(bytes.Clone(r.tagged), r.tag[:]...)
	if len(wrapped) > root.MaxWrapped {
		return nil, fmt.Errorf("the wrapper has %d bytes, more than the %d that are kept", len(wrapped), root.MaxWrapped)
	}
	return wrapped, nil
}

func (r *Row) tagUnder(key secret.Bytes) (digest, error) {
	macKey, err := hkdf.Key(sha256.New, key.Expose(), nil, tagLabel+string(r.Set.Context), sha256.Size)
	if err != nil {
		return digest{}, err
	}
	defer clear(macKey)
	mac := hmac.New(sha256.New, macKey)
	mac.Write(r.tagged)
	return digest(mac.Sum(nil)), nil
}

// ParseRow reads what [Root.Wrap] returned. Its error is [ErrMalformed].
func ParseRow(wrapped []byte) (Row, error) {
	row, err := parseRow(wrapped)
	if err != nil {
		return Row{}, fmt.Errorf("reading a wrapper of %d bytes: %w", len(wrapped), err)
	}
	return row, nil
}

func parseRow(wrapped []byte) (Row, error) {
	if len(wrapped) > root.MaxWrapped || len(wrapped) < sha256.Size {
		return Row{}, ErrMalformed
	}
	var r Row
	data := bytes.Clone(wrapped)
	r.tagged = data[:len(data)-sha256.Size]
	r.tag = digest(data[len(data)-sha256.Size:])
	in := cryptobyte.String(r.tagged)
	var label, encoded cryptobyte.String
	if !in.ReadUint16LengthPrefixed(&label) || string(label) != rowLabel || !in.ReadUint16LengthPrefixed(&encoded) {
		return Row{}, ErrMalformed
	}
	var err error
	if r.Set, err = parseSet(encoded); err != nil {
		return Row{}, err
	}
	for range r.Set.Custodians {
		var sealed cryptobyte.String
		if !in.ReadUint16LengthPrefixed(&sealed) || sealed.Empty() {
			return Row{}, ErrMalformed
		}
		r.sealed = append(r.sealed, sealed)
	}
	if !in.Empty() {
		return Row{}, ErrMalformed
	}
	return r, nil
}

// Verify tells whether the row is as it was made, and for key and context: else
// it is [ErrAltered].
func (r Row) Verify(key secret.Bytes, context []byte) error {
	if !bytes.Equal(context, r.Set.Context) {
		return fmt.Errorf("%s, which is for another context: %w", r.Set, ErrAltered)
	}
	tag, err := r.tagUnder(key)
	if err != nil {
		return err
	}
	if !hmac.Equal(tag[:], r.tag[:]) {
		return fmt.Errorf("%s: %w", r.Set, ErrAltered)
	}
	return nil
}
