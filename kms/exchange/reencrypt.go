package exchange

import (
	"crypto/sha256"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// Reencryption is the order, beside a released secret, that the volume gets a new
// volume key.
type Reencryption struct {
	// From is the identity digest of before.
	From [32]byte
	// Begun says that the service heard that it has: the header is under
	// reencryption, or it has ended.
	Begun bool
	// Rate is the most bytes to reencrypt in a second; 0: as fast as it goes.
	Rate uint64
	// Lose are the keyslots whose loss somebody agreed to, by number and mark.
	Lose []LUKSSlot
}

// The bounds of a [Reencryption].
const (
	// MaxLost bounds the keyslots that are lost: as many as a header has.
	MaxLost = 32
	maxMark = 8
)

func (r *Reencryption) check() bool {
	return r == nil || len(r.Lose) <= MaxLost && !slices.ContainsFunc(r.Lose, func(s LUKSSlot) bool {
		return s.ID < 0 || s.ID >= MaxLost || len(s.Mark) > maxMark
	})
}

// room is at least its encoded length.
func (r *Reencryption) room() int {
	if r == nil {
		return 1
	}
	return 1 + 32 + 1 + 8 + 1 + len(r.Lose)*(1+1+maxMark)
}

func (r *Reencryption) add(b *cryptobyte.Builder) {
	if r == nil {
		b.AddUint8(0)
		return
	}
	b.AddUint8(1)
	b.AddBytes(r.From[:])
	b.AddUint8(bit(r.Begun))
	b.AddUint64(r.Rate)
	b.AddUint8(uint8(min(len(r.Lose), MaxLost)))
	for _, s := range r.Lose {
		b.AddUint8(uint8(s.ID))
		addText(b, s.Mark)
	}
}

func bit(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}

func readFlag(in *cryptobyte.String, set *bool) bool {
	var value uint8
	ok := in.ReadUint8(&value) && value <= 1
	*set = value == 1
	return ok
}

// readReencryption reads what add wrote; nil where there is none.
func readReencryption(in *cryptobyte.String, to **Reencryption) bool {
	var there bool
	if !readFlag(in, &there) || !there {
		return !there
	}
	var r Reencryption
	var count uint8
	if !in.CopyBytes(r.From[:]) || !readFlag(in, &r.Begun) || !in.ReadUint64(&r.Rate) || !in.ReadUint8(&count) {
		return false
	}
	for range count {
		var number uint8
		var s LUKSSlot
		if !in.ReadUint8(&number) || !readText(in, &s.Mark) {
			return false
		}
		s.ID = int(number)
		r.Lose = append(r.Lose, s)
	}
	*to = &r
	return r.check()
}

// underLabel begins what the identity of a header under reencryption is made of.
const underLabel = "keywright/luks-reencryption/v1\x00"

// UnderReencryption is the identity digest of a header under reencryption, which has
// no identity of its own: of the one that it had before, and the one that it will
// have.
func UnderReencryption(from, becomes [32]byte) [32]byte {
	return sha256.Sum256(slices.Concat([]byte(underLabel), from[:], becomes[:]))
}

// Stage is how far a reencryption has come, in a report.
type Stage string

// The stages.
const (
	// StageReady says that every keyslot that stays is there: of a recovery key, the
	// new one. Nothing was taken away yet.
	StageReady Stage = "ready"
	// StageBegun says that the header is under reencryption.
	StageBegun Stage = "begun"
	// StageProgress says how much of the data is under the new volume key.
	StageProgress Stage = "progress"
	// StageDone says that all is, and that the header is a plain one again.
	StageDone Stage = "done"
)

// Progress is how far a reencryption has come.
type Progress struct {
	Done  uint64 `json:"done"`  // bytes
	Total uint64 `json:"total"` // bytes
	Rate  uint64 `json:"rate"`  // bytes a second
	Left  uint64 `json:"left"`  // seconds, an estimate
}

// Bounds of progress, so that sums of it do not overflow.
const (
	maxBytes   = 1 << 60
	maxSeconds = uint64(100 * 365 * 24 * time.Hour / time.Second)
)

// Valid tells whether the numbers can be meant.
func (p *Progress) Valid() bool {
	return p.Done <= p.Total && p.Total <= maxBytes && p.Rate <= maxBytes && p.Left <= maxSeconds
}
