package kms

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"keywright.dev/kms/exchange"
)

// maxInventory bounds what is kept of a header's slots and tokens, in bytes of
// JSON.
const maxInventory = 16 << 10

// inventoryOf returns the row form of a report.
func inventoryOf(report exchange.VolumeReport) ([]byte, *Refusal) {
	out, err := json.Marshal(report)
	if err != nil || len(out) > maxInventory {
		return nil, refuse(ReasonMalformed, "the report about a LUKS header is longer than %d bytes", maxInventory)
	}
	return out, nil
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

// reported returns the volumes whose slots or tokens are not those reported
// before. A change is recorded and does not stop the boot.
func (r *releasing) reported(state *State) []Volume {
	var changed []Volume
	for _, report := range r.details.Volumes {
		known := findVolume(state.Volumes, report.ID)
		inventory, refusal := inventoryOf(report)
		if known == nil || refusal != nil || bytes.Equal(known.Inventory, inventory) {
			continue
		}
		v := *known
		v.Inventory = inventory
		changed = append(changed, v)
	}
	return changed
}

func formatCounters(c Counters) string {
	return fmt.Sprintf("reset %d, restart %d, clock %d ms", c.ResetCount, c.RestartCount, c.Clock)
}

func hexBytes(b []byte) string { return hex.EncodeToString(b) }
