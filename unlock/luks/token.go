package luks

import (
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json"
)

// TokenType is the type of our LUKS2 token.
const TokenType = "keywright"

// tokenVersion is the one version of [Token] that is read and written.
const tokenVersion = 1

// Purpose is what a keyslot of ours is for.
type Purpose string

// The purposes.
const (
	// PurposeBoot is that of the secret that attested boots are released.
	PurposeBoot Purpose = ""
	// PurposeRecovery is that of a recovery key, which people type. No boot opens
	// it.
	PurposeRecovery Purpose = "recovery"
)

// Token says which volume of the service a keyslot belongs to, and lets an
// interrupted enrolment be told from a finished one. It holds nothing secret.
// See docs/formats/luks-token.md.
type Token struct {
	// Volume is the service's id of the volume.
	Volume string
	// Resume is the id under which the service gives out the same pending
	// secret again.
	Resume  string
	Purpose Purpose
	// Version counts the secrets of the volume and purpose from 1: it is that of
	// the secret which the keyslot holds.
	Version uint32
	// Slot is the keyslot that the secret is meant for, 0 to 31.
	Slot int
	// Keyslots is empty until the keyslot has been opened once, then it names
	// that keyslot. cryptsetup renumbers it, so it may differ from Slot.
	Keyslots []int
}

// tokenForm is the token as it stands in the header.
type tokenForm struct {
	Type     string `json:"type"`
	Keyslots []id   `json:"keyslots"`
	Version  int    `json:"version"`
	Volume   string `json:"volume"`
	Resume   string `json:"resume"`
	Secret   uint32 `json:"secret"`
	Slot     *id    `json:"slot"`
	// Purpose is absent for that of boots.
	Purpose *Purpose `json:"purpose,omitempty"`
}

// idForm is what volume and resume ids look like.
var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// ParseToken parses a token of ours. It refuses unknown, missing and duplicate
// members, another type or version, and more than one keyslot.
func ParseToken(text []byte) (Token, error) {
	t, err := decodeToken(text)
	if err != nil {
		return Token{}, err
	}
	return t, t.check()
}

// decodeToken is [ParseToken] but for what [Token.check] refuses.
func decodeToken(text []byte) (Token, error) {
	var f tokenForm
	if err := checkSyntax(text); err != nil {
		return Token{}, fmt.Errorf("parsing a %s token: %w", TokenType, err)
	}
	if err := strictly(text, &f); err != nil {
		return Token{}, fmt.Errorf("parsing a %s token: %w", TokenType, err)
	}
	if f.Type != TokenType || f.Version != tokenVersion || f.Keyslots == nil || f.Slot == nil {
		return Token{}, fmt.Errorf("parsing a %s token: type %q, version %d, or a member is missing", TokenType, f.Type, f.Version)
	}
	t := Token{Volume: f.Volume, Resume: f.Resume, Version: f.Secret, Slot: int(*f.Slot), Keyslots: numbers(f.Keyslots)}
	if f.Purpose != nil {
		if t.Purpose = *f.Purpose; t.Purpose == PurposeBoot {
			return Token{}, fmt.Errorf("parsing a %s token: its purpose is empty", TokenType)
		}
	}
	return t, nil
}

func (t Token) check() error {
	if !idForm.MatchString(t.Volume) || !idForm.MatchString(t.Resume) {
		return fmt.Errorf("checking a %s token: volume or resume id is malformed", TokenType)
	}
	if t.Version == 0 {
		return fmt.Errorf("checking a %s token: secrets are counted from 1", TokenType)
	}
	if t.Purpose != PurposeBoot && t.Purpose != PurposeRecovery {
		return fmt.Errorf("checking a %s token: its purpose is not known", TokenType)
	}
	if len(t.Keyslots) > 1 {
		return fmt.Errorf("checking a %s token: it names %d keyslots, want at most one", TokenType, len(t.Keyslots))
	}
	for _, slot := range append([]int{t.Slot}, t.Keyslots...) {
		if slot < 0 || slot >= maxSlots {
			return fmt.Errorf("checking a %s token: keyslot %d is out of range", TokenType, slot)
		}
	}
	return nil
}

// Encode returns the token's JSON, in the one form that this package writes.
func (t Token) Encode() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	slot := id(t.Slot)
	f := tokenForm{Type: TokenType, Version: tokenVersion, Volume: t.Volume, Resume: t.Resume, Secret: t.Version, Slot: &slot, Keyslots: []id{}}
	if t.Purpose != PurposeBoot {
		f.Purpose = &t.Purpose
	}
	for _, s := range t.Keyslots {
		f.Keyslots = append(f.Keyslots, id(s))
	}
	return json.Marshal(f)
}

// OwnToken is a token of ours and its number in the header.
type OwnToken struct {
	ID int
	Token
}

// OwnTokens returns the readable tokens of ours in ascending order.
func (v *Volume) OwnTokens() []OwnToken {
	var own []OwnToken
	for _, number := range slices.Sorted(maps.Keys(v.tokens)) {
		if v.tokens[number].Type != TokenType {
			continue
		}
		if t, err := v.ownToken(number); err == nil {
			own = append(own, OwnToken{ID: int(number), Token: t})
		}
	}
	return own
}

// ownToken parses a token of ours. Keyslots that do not hold the volume's key are
// passed by: a reencryption that was cut before it began leaves some, which tokens
// name beside their own.
func (v *Volume) ownToken(number id) (Token, error) {
	t, err := decodeToken(v.header.metadata.Tokens[number])
	if err != nil {
		return Token{}, err
	}
	t.Keyslots = slices.DeleteFunc(t.Keyslots, func(slot int) bool { return !v.opens(slot) })
	return t, t.check()
}

// OwnSlots returns the keyslots for boots that tokens of ours for a volume id are
// assigned to, in the order of the tokens' numbers.
func (v *Volume) OwnSlots(volume string) []int { return v.SlotsFor(volume, PurposeBoot) }

// SlotsFor is [Volume.OwnSlots] for another purpose.
func (v *Volume) SlotsFor(volume string, purpose Purpose) []int {
	var slots []int
	for _, t := range v.OwnTokens() {
		if t.Volume == volume && t.Purpose == purpose {
			slots = append(slots, t.Keyslots...)
		}
	}
	return slots
}
