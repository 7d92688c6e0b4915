package exchange

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/secret"
)

const (
	releaseV1 = "keywright/release/v1"
	// minPadded and its doublings are the lengths a message can have, so that
	// its length does not tell how many volumes a machine has.
	minPadded = 4 << 10
	maxPadded = 64 << 10
	// MaxKey bounds one released secret, in bytes.
	MaxKey = 1 << 10
)

// Release is the message that the service seals for a guest.
type Release struct {
	// ID names this release; PCR 15 is extended with it.
	ID [32]byte
	// Entry is the signed audit entry of this release (package audit), which
	// the guest keeps as a receipt.
	Entry   []byte
	Secrets []ReleasedSecret
}

// ReleasedSecret is what opens one volume.
type ReleasedSecret struct {
	Volume string // volume id
	UUID   string // of the LUKS header
	// Version counts the secrets of the volume from 1.
	Version uint32
	// Identity is the identity digest that the header must have; zero while
	// the volume is not committed.
	Identity [32]byte
	// Resume is the id that an interrupted enrolment goes on with; zero for a
	// volume that is committed.
	Resume [16]byte
	// Key is the content of the keyslot.
	Key secret.Bytes
	// Recovery is the volume's recovery key, which an enrolment adds as a keyslot
	// of its own; empty for a boot, and where none is wanted.
	Recovery secret.Bytes
	// RecoveryVersion is that of Recovery, from 1; 0 without one.
	RecoveryVersion uint32
	// Next is the secret, of version NextVersion, whose keyslot is to take the
	// place of Key's; empty where no rekey is ordered.
	Next        secret.Bytes
	NextVersion uint32
	// HeaderKey is what the copy of the header from before this rekey is sealed
	// under ([SealHeaderCopy]); empty without one.
	HeaderKey secret.Bytes
	// Reencrypt is an order; nil where there is none.
	Reencrypt *Reencryption
}

// Wipe wipes every key of the release.
func (r *Release) Wipe() {
	for _, s := range r.Secrets {
		s.Key.Wipe()
		s.Recovery.Wipe()
		s.Next.Wipe()
		s.HeaderKey.Wipe()
	}
}

// marshal encodes the release and pads it with zeros to one of few lengths.
func (r *Release) marshal() (secret.Bytes, error) {
	// A fixed buffer: growing would leave copies of keys behind.
	buffer := secret.New(make([]byte, min(paddedLength(r.room()), maxPadded)))
	b := cryptobyte.NewFixedBuilder(buffer.Expose()[:0])
	addText(b, releaseV1)
	b.AddBytes(r.ID[:])
	b.AddUint16(uint16(min(len(r.Entry), maxPadded-1)))
	b.AddBytes(r.Entry)
	b.AddUint8(uint8(min(len(r.Secrets), maxText)))
	for _, s := range r.Secrets {
		s.add(b)
	}
	out, err := b.Bytes()
	if err != nil {
		buffer.Wipe()
		return secret.Bytes{}, fmt.Errorf("encoding a release: %w", err)
	}
	return secret.New(out[:paddedLength(len(out))]), nil
}

// room is at least the length of the message before it is padded.
func (r *Release) room() int {
	const fixed, fixedSecret = 1 + len(releaseV1) + 32 + 2 + 1, 1 + 1 + 4 + 32 + 16 + 2 + 2 + 2 + 4 + 1 + 4
	room := fixed + len(r.Entry)
	for _, s := range r.Secrets {
		room += fixedSecret + len(s.Volume) + len(s.UUID) + s.Key.Len() + s.Recovery.Len() + s.Next.Len() + s.HeaderKey.Len() + s.Reencrypt.room()
	}
	return room
}

// paddedLength is the smallest length a message of n bytes is padded to.
func paddedLength(n int) int {
	padded := minPadded
	for padded < n {
		padded *= 2
	}
	return padded
}

func (s *ReleasedSecret) add(b *cryptobyte.Builder) {
	b.AddUint8(uint8(len(s.Volume)))
	b.AddBytes([]byte(s.Volume))
	b.AddUint8(uint8(len(s.UUID)))
	b.AddBytes([]byte(s.UUID))
	b.AddUint32(s.Version)
	b.AddBytes(s.Identity[:])
	b.AddBytes(s.Resume[:])
	b.AddUint16(uint16(s.Key.Len()))
	b.AddBytes(s.Key.Expose())
	b.AddUint16(uint16(s.Recovery.Len()))
	b.AddBytes(s.Recovery.Expose())
	b.AddUint16(uint16(s.Next.Len()))
	b.AddBytes(s.Next.Expose())
	b.AddUint32(s.NextVersion)
	b.AddUint8(uint8(s.HeaderKey.Len()))
	b.AddBytes(s.HeaderKey.Expose())
	b.AddUint32(s.RecoveryVersion)
	s.Reencrypt.add(b)
}

// check refuses what marshal's length fields cannot hold.
func (r *Release) check() error {
	if len(r.Entry) >= maxPadded {
		return fmt.Errorf("encoding a release: its audit entry has %d bytes", len(r.Entry))
	}
	if len(r.Secrets) > MaxVolumes {
		return fmt.Errorf("encoding a release: %d secrets, at most %d are allowed", len(r.Secrets), MaxVolumes)
	}
	for _, s := range r.Secrets {
		if len(s.Volume) > maxText || len(s.UUID) > maxText || s.Key.Len() == 0 || s.Key.Len() > MaxKey ||
			s.Recovery.Len() > MaxKey || s.Next.Len() > MaxKey || (s.Next.Len() > 0) != (s.NextVersion > 0) ||
			s.HeaderKey.Len() != headerKeyOf(s.NextVersion) ||
			(s.Recovery.Len() > 0) != (s.RecoveryVersion > 0) || !s.Reencrypt.check() {
			return fmt.Errorf("encoding a release: the secret of volume %.64q is out of bounds", s.Volume)
		}
	}
	return nil
}

// parseRelease decodes a padded message. The keys are copies: the caller wipes
// the message.
func parseRelease(message secret.Bytes) (*Release, error) {
	var r Release
	in := cryptobyte.String(message.Expose())
	if !r.read(&in) || !allZero(in) || paddedLength(message.Len()-len(in)) != message.Len() {
		r.Wipe()
		return nil, fmt.Errorf("%w release", ErrMalformed)
	}
	return &r, nil
}

func (r *Release) read(in *cryptobyte.String) bool {
	var label string
	var count uint8
	ok := readText(in, &label) && label == releaseV1 &&
		in.CopyBytes(r.ID[:]) &&
		readBytes16(in, &r.Entry) &&
		in.ReadUint8(&count) && count <= MaxVolumes
	for range count {
		var s ReleasedSecret
		ok = ok && s.read(in)
		r.Secrets = append(r.Secrets, s)
	}
	return ok
}

func (s *ReleasedSecret) read(in *cryptobyte.String) bool {
	var key, recovery, next, header cryptobyte.String
	if !readText(in, &s.Volume) || !readText(in, &s.UUID) || !in.ReadUint32(&s.Version) ||
		!in.CopyBytes(s.Identity[:]) || !in.CopyBytes(s.Resume[:]) || !in.ReadUint16LengthPrefixed(&key) ||
		!in.ReadUint16LengthPrefixed(&recovery) || !in.ReadUint16LengthPrefixed(&next) || !in.ReadUint32(&s.NextVersion) ||
		!in.ReadUint8LengthPrefixed(&header) || !in.ReadUint32(&s.RecoveryVersion) || !readReencryption(in, &s.Reencrypt) {
		return false
	}
	s.Key, s.Recovery, s.Next, s.HeaderKey = copied(key), copied(recovery), copied(next), copied(header)
	return len(key) > 0 && max(len(key), len(recovery), len(next)) <= MaxKey && (len(next) > 0) == (s.NextVersion > 0) &&
		len(header) == headerKeyOf(s.NextVersion) && (len(recovery) > 0) == (s.RecoveryVersion > 0)
}

// headerKeyOf is how long the key for the copy of a header is: where there is a next
// version, its keyslot is not added before there is a copy.
func headerKeyOf(next uint32) int {
	if next == 0 {
		return 0
	}
	return HeaderKeySize
}

// copied is a secret of its own, or none.
func copied(b []byte) secret.Bytes {
	if len(b) == 0 {
		return secret.Bytes{}
	}
	return secret.Copy(b)
}

func allZero(data []byte) bool {
	var sum byte
	for _, b := range data {
		sum |= b
	}
	return sum == 0
}
