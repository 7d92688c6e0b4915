package kms

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
)

const (
	// maxInventory bounds what is kept of a header's slots and tokens, in bytes of
	// JSON.
	maxInventory = 16 << 10
	// maxVolumeKeyDigest bounds the digest of a volume key, in bytes: SHA-512's.
	maxVolumeKeyDigest = 64
	// maxVolumeSize is an EiB: no disk is larger.
	maxVolumeSize = 1 << 60
)

// inventoryOf returns the row form of a report.
func inventoryOf(report exchange.VolumeReport) ([]byte, *Refusal) {
	if len(report.VolumeKeyDigest) > maxVolumeKeyDigest {
		return nil, refuse(ReasonMalformed, "the digest of a volume key is longer than %d bytes", maxVolumeKeyDigest)
	}
	if report.Size > maxVolumeSize {
		return nil, refuse(ReasonMalformed, "a volume is reported to be larger than %d bytes", uint64(maxVolumeSize))
	}
	out, err := json.Marshal(report)
	if err != nil || len(out) > maxInventory {
		return nil, refuse(ReasonMalformed, "the report about a LUKS header is longer than %d bytes", maxInventory)
	}
	return out, nil
}

// describe takes over what a report says, and judges nothing of it.
func (v *Volume) describe(report *exchange.VolumeReport) *Refusal {
	inventory, refusal := inventoryOf(*report)
	if refusal == nil {
		v.Inventory, v.Size = inventory, report.Size
	}
	return refusal
}

// ParseInventory reads a volume's Inventory; nil where none was reported.
func ParseInventory(inventory []byte) (*exchange.VolumeReport, error) {
	if len(inventory) == 0 {
		return nil, nil //nolint:nilnil // no report is not an error
	}
	var report exchange.VolumeReport
	if err := json.Unmarshal(inventory, &report); err != nil {
		return nil, fmt.Errorf("reading a volume's inventory: %w", err)
	}
	return &report, nil
}

// InventoryDigest names what was reported last: 64 hex digits.
func (v *Volume) InventoryDigest() string { return hexDigest(sha256.Sum256(v.Inventory)) }

// Item is a keyslot or a token of a LUKS2 header.
type Item struct {
	Kind string // keyslot or token
	// Text is what it is: of a keyslot "2, argon2id, 5f1a03c2", of a token "1,
	// clevis, keyslots 2".
	Text string
}

// itemsOf returns what opens a volume, or says how. A priority and the header's
// sequence open nothing.
func itemsOf(report *exchange.VolumeReport) []Item {
	if report == nil {
		return nil
	}
	var items []Item
	for _, s := range report.Slots {
		text := fmt.Sprintf("%d, %s", s.ID, quoted(s.KDF))
		if s.Mark != "" {
			text += ", " + quoted(s.Mark)
		}
		items = append(items, Item{"keyslot", text})
	}
	for _, t := range report.Tokens {
		slots := strings.Trim(fmt.Sprint(t.Slots), "[]")
		text := fmt.Sprintf("%d, %s, keyslots %s", t.ID, quoted(t.Type), slots)
		if t.Volume != "" {
			text += ", volume/" + quoted(t.Volume)
		}
		items = append(items, Item{"token", text})
	}
	return items
}

// quoted quotes what a header says where a terminal would not just print it.
func quoted(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// itemMark is the length of what an accepted slot or token is known by.
const itemMark = 16

func (i Item) mark() []byte {
	sum := sha256.Sum256([]byte(i.Kind + "\x00" + i.Text))
	return sum[:itemMark]
}

// acceptedOf returns the marks of what a report holds.
func acceptedOf(report *exchange.VolumeReport) []byte {
	var marks []byte
	for _, i := range itemsOf(report) {
		marks = append(marks, i.mark()...)
	}
	return marks
}

// foreign returns the slots and tokens of a report that are not accepted.
func (v *Volume) foreign(report *exchange.VolumeReport) []Item {
	return slices.DeleteFunc(itemsOf(report), func(i Item) bool {
		for known := range slices.Chunk(v.Accepted, itemMark) {
			if bytes.Equal(known, i.mark()) {
				return true
			}
		}
		return false
	})
}

// ForeignItems returns the slots and tokens last reported that nobody accepted.
func (v *Volume) ForeignItems() ([]Item, error) {
	report, err := ParseInventory(v.Inventory)
	if err != nil {
		return nil, err
	}
	return v.foreign(report), nil
}

func factsOf(items []Item) []audit.Fact {
	var facts []audit.Fact
	for _, i := range items {
		facts = append(facts, audit.Fact{Name: "luks." + i.Kind, Is: i.Text})
	}
	return facts
}

// presentVolumes returns those that are not former.
func presentVolumes(volumes []Volume) []Volume {
	return slices.DeleteFunc(slices.Clone(volumes), func(v Volume) bool { return v.Status == VolumeFormer })
}

// reported takes over the slots and tokens that are not those reported before. A
// foreign one raises an alarm and does not stop the boot.
func (r *releasing) reported(out *Outcome, state *State) error {
	for _, report := range r.details.Volumes {
		known := findVolume(state.Volumes, report.ID)
		if known == nil || known.Status != VolumeActive || len(report.Becomes) > 0 || findVolume(out.Volumes, report.ID) != nil {
			continue
		}
		v := *known
		if v.describe(&report) != nil || bytes.Equal(known.Inventory, v.Inventory) {
			continue
		}
		r.alarms = append(r.alarms, v.holdKey(report.VolumeKeyDigest, state.SameKey, out)...)
		if err := r.compare(known, &v, &report, findOrder(state.Orders, v.ID)); err != nil {
			return err
		}
		out.Volumes = append(out.Volumes, v)
	}
	return nil
}

// compare raises an alarm for what is foreign now and was not before.
func (r *releasing) compare(known, v *Volume, report *exchange.VolumeReport, order *Order) error {
	before, err := known.ForeignItems()
	if err != nil {
		return err
	}
	ordered := orderedItems(order, report)
	foreign := slices.DeleteFunc(v.foreign(report), func(i Item) bool { return slices.Contains(ordered, i) })
	v.Foreign = len(foreign) > 0
	fresh := slices.DeleteFunc(foreign, func(i Item) bool { return slices.Contains(before, i) })
	if len(fresh) > 0 {
		r.alarms = append(r.alarms, alarm{ActionForeign, v.Machine, v.ID, factsOf(fresh)})
	}
	return nil
}

func formatCounters(c Counters) string {
	return fmt.Sprintf("reset %d, restart %d, clock %d ms", c.ResetCount, c.RestartCount, c.Clock)
}

func hexBytes(b []byte) string { return hex.EncodeToString(b) }
