package quorum

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/secret"
)

const (
	shareLabel = "keywright/quorum-share/v1"
	sumSize    = 8
	// maxShare is more than the largest share that keeps the bounds.
	maxShare = 4 << 10
)

// share is what a custodian's age file holds: the set, which share of it this
// is, its value, and a checksum, by which damage is told from another share.
type share struct {
	set    Set
	number int // from 1
	value  secret.Bytes
}

func (s share) custodian() string { return s.set.Custodians[s.number-1] }

func encodeShare(set Set, number int, value secret.Bytes) secret.Bytes {
	// The capacity is exact, so that no copy of the value is left behind.
	data := make([]byte, 0, 2+len(shareLabel)+2+len(set.encoded)+1+2+value.Len()+sumSize)
	for _, field := range [][]byte{[]byte(shareLabel), set.encoded} {
		data = binary.BigEndian.AppendUint16(data, uint16(len(field)))
		data = append(data, field...)
	}
	data = append(data, byte(number))
	data = binary.BigEndian.AppendUint16(data, uint16(value.Len()))
	data = append(data, value.Expose()...)
	return secret.New(append(data, checksum(data)...))
}

func checksum(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:sumSize]
}

// parseShare reads a share and holds it against the digest in its set: its
// errors are [ErrMalformed] and, where it can say whose the share is, [ErrWrong].
func parseShare(data secret.Bytes) (share, error) {
	s, err := decodeShare(data.Expose())
	if err != nil {
		return share{}, err
	}
	if digestOf(s.number, s.value.Expose()) != s.set.digests[s.number-1] {
		s.value.Wipe()
		return s, fmt.Errorf("the share of %s in %s: %w", s.custodian(), s.set, ErrWrong)
	}
	return s, nil
}

func decodeShare(data []byte) (share, error) {
	if len(data) < sumSize || len(data) > maxShare {
		return share{}, ErrMalformed
	}
	body, sum := data[:len(data)-sumSize], data[len(data)-sumSize:]
	if string(checksum(body)) != string(sum) {
		return share{}, ErrMalformed
	}
	in := cryptobyte.String(body)
	var label, encoded, value cryptobyte.String
	var number uint8
	if !in.ReadUint16LengthPrefixed(&label) || string(label) != shareLabel || !in.ReadUint16LengthPrefixed(&encoded) ||
		!in.ReadUint8(&number) || !in.ReadUint16LengthPrefixed(&value) || !in.Empty() {
		return share{}, ErrMalformed
	}
	set, err := parseSet(encoded)
	if err != nil {
		return share{}, err
	}
	if number == 0 || int(number) > len(set.Custodians) || len(value) != payloadFixed+len(set.Context) {
		return share{}, ErrMalformed
	}
	return share{set, int(number), secret.Copy(value)}, nil
}
