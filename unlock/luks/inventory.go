package luks

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
)

// Inventory is what else a header holds, beside its identity: it changes in
// ordinary operation, so it is reported, and what is not expected in it alarms.
type Inventory struct {
	SequenceID uint64           `json:"seqid"` // luksDump's epoch
	Copies     Copies           `json:"copies"`
	Flags      []string         `json:"flags"` // persistent activation flags, sorted
	Keyslots   []InventorySlot  `json:"keyslots"`
	Tokens     []InventoryToken `json:"tokens"`
}

// InventorySlot is one keyslot.
type InventorySlot struct {
	ID       int    `json:"id"`
	Type     string `json:"type"`
	KDF      string `json:"kdf"`
	Priority int    `json:"priority"` // 0 ignored, 1 normal, 2 tried first
	Bound    bool   `json:"bound"`    // holds the key of the data segment
	// Mark is the beginning of the SHA-256 of the KDF's salt, 8 hex digits: a
	// keyslot that is made anew has another, be its number the same.
	Mark       string `json:"mark"`
	AreaOffset uint64 `json:"area_offset"`
	AreaSize   uint64 `json:"area_size"`
}

// InventoryToken is one token. Volume, Purpose, Secret and Announced are of tokens of
// ours alone.
type InventoryToken struct {
	ID       int    `json:"id"`
	Type     string `json:"type"`
	Keyslots []int  `json:"keyslots"`
	Volume   string `json:"volume,omitzero"`
	// Purpose is that of a token of ours; empty for boots.
	Purpose Purpose `json:"purpose,omitzero"`
	// Secret is the version of the secret that it is about.
	Secret uint32 `json:"secret,omitzero"`
	// Announced is the keyslot that it is meant for, before it is assigned to one.
	Announced []int `json:"announced,omitempty"`
	// Unreadable says that the token has our type, but is malformed or of a
	// version that this program does not know.
	Unreadable bool `json:"unreadable,omitzero"`
}

// Inventory returns the inventory, in ascending order throughout.
func (v *Volume) Inventory() Inventory {
	inventory := Inventory{
		SequenceID: v.header.SequenceID,
		Copies:     v.header.Copies,
		Flags:      append([]string{}, v.header.metadata.Config.Flags...),
		Keyslots:   make([]InventorySlot, 0, len(v.keyslots)),
		Tokens:     make([]InventoryToken, 0, len(v.tokens)),
	}
	slices.Sort(inventory.Flags)
	for _, number := range slices.Sorted(maps.Keys(v.keyslots)) {
		inventory.Keyslots = append(inventory.Keyslots, v.inventorySlot(number))
	}
	for _, number := range slices.Sorted(maps.Keys(v.tokens)) {
		inventory.Tokens = append(inventory.Tokens, v.inventoryToken(number))
	}
	return inventory
}

func markOf(salt []byte) string {
	sum := sha256.Sum256(salt)
	return hex.EncodeToString(sum[:4])
}

func (v *Volume) inventorySlot(number id) InventorySlot {
	k := v.keyslots[number]
	priority := 1
	if k.Priority != nil {
		priority = *k.Priority
	}
	return InventorySlot{
		ID: int(number), Type: k.Type, KDF: k.KDF.Type, Priority: priority, Bound: v.opens(int(number)), Mark: markOf(k.KDF.Salt),
		AreaOffset: uint64(k.Area.Offset), AreaSize: uint64(k.Area.Size),
	}
}

func (v *Volume) inventoryToken(number id) InventoryToken {
	t := v.tokens[number]
	entry := InventoryToken{ID: int(number), Type: t.Type, Keyslots: numbers(t.Keyslots)}
	if t.Type != TokenType {
		return entry
	}
	ours, err := v.ownToken(number)
	entry.Volume, entry.Purpose, entry.Secret, entry.Unreadable = ours.Volume, ours.Purpose, ours.Version, err != nil
	if err == nil && len(ours.Keyslots) == 0 {
		entry.Announced = []int{ours.Slot}
	}
	return entry
}

// numbers returns ids as sorted numbers, never nil.
func numbers(ids []id) []int {
	out := make([]int, 0, len(ids))
	for _, i := range ids {
		out = append(out, int(i))
	}
	slices.SortFunc(out, cmp.Compare[int])
	return out
}
