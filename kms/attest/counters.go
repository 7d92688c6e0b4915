package attest

// Counters are the TPM's clock and counters (TPMS_CLOCK_INFO, TPM 2.0 part 2,
// section 10.11.1), readable because the key is in the endorsement hierarchy.
type Counters struct {
	// ResetCount counts TPM resets: power cycles of the machine.
	ResetCount uint32
	// RestartCount counts restarts and resumes since the last reset.
	RestartCount uint32
	// Clock is in milliseconds of powered time.
	Clock uint64
	// Safe is false while the TPM may have reported a higher clock before it
	// lost power without notice.
	Safe bool
}

// Order tells how counters follow those seen before.
type Order int

// The orders. Regression means that the TPM's state was cloned or rolled back,
// or that the TPM was cleared.
const (
	Regression Order = iota
	SameBoot
	Advance
)

// Since compares with the counters last seen of the same TPM: first
// ResetCount, then RestartCount, and the clock only when both are equal. A TPM
// that lost power without notice may set its clock back, but has then counted
// a reset; so Safe plays no part.
func (c Counters) Since(last Counters) Order {
	switch {
	case c.ResetCount != last.ResetCount:
		return orderOf(c.ResetCount > last.ResetCount)
	case c.RestartCount != last.RestartCount:
		return orderOf(c.RestartCount > last.RestartCount)
	case c.Clock < last.Clock:
		return Regression
	default:
		return SameBoot
	}
}

func orderOf(ahead bool) Order {
	if ahead {
		return Advance
	}
	return Regression
}
