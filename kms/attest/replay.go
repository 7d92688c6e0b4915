package attest

import (
	"crypto/sha256"
	"slices"
)

const (
	imaPCR     = 10
	stubPCR    = 11
	statePCR   = 15
	digestSize = sha256.Size
)

// noPhase is [claims.BootPhase] where systemd measured none.
const noPhase = "none"

// replayed holds what the log says PCRs 0 to 14 contain.
type replayed [loggedPCRs][digestSize]byte

func (l *eventLog) replay() *replayed {
	var values replayed
	values[0][digestSize-1] = l.locality
	for pcr := range values {
		for i := range l.events[pcr] {
			values[pcr] = extend(values[pcr], &l.events[pcr][i].digest)
		}
	}
	return &values
}

func extend(value [digestSize]byte, digest *[digestSize]byte) [digestSize]byte {
	var both [2 * digestSize]byte
	copy(both[:], value[:])
	copy(both[digestSize:], digest[:])
	return sha256.Sum256(both[:])
}

// match compares with the quote and returns the boot phase that PCR 11 tells.
func (v *replayed) match(q *Quoted) (string, error) {
	phase := noPhase
	for pcr, value := range v {
		quoted, covered := q.PCR(uint(pcr))
		if !covered || quoted == value {
			continue
		}
		var known bool
		if pcr == stubPCR {
			phase, known = phaseOf(value, quoted)
		}
		if !known {
			return "", refuse(PCRMismatch, "PCR %d is %x, the event log replays to %x", pcr, quoted, value)
		}
	}
	return phase, nil
}

// phaseOf finds the phases that systemd-pcrphase extends PCR 11 with after the
// firmware's log has ended. A system without systemd in its initrd begins at
// "sysinit".
func phaseOf(value, quoted [digestSize]byte) (string, bool) {
	phases := []string{"enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"}
	for _, start := range []int{0, slices.Index(phases, "sysinit")} {
		reached := value
		for _, phase := range phases[start:] {
			digest := sha256.Sum256([]byte(phase))
			if reached = extend(reached, &digest); reached == quoted {
				return phase, true
			}
		}
	}
	return "", false
}

// checkMeasured refuses a quote of a machine whose firmware measured nothing.
func checkMeasured(q *Quoted) error {
	for _, pcr := range []uint{0, 4, 7} {
		if value, _ := q.PCR(pcr); value == [digestSize]byte{} {
			return refuse(PCRZero, "PCR %d of the SHA-256 bank was never extended: the firmware measures nothing, or into another bank", pcr)
		}
	}
	return nil
}

// checkSeparators demands of each of PCRs 0 to 7 that the firmware closed it,
// once. The digest tells, not the type. Without a separator nothing tells the
// firmware's measurements from those of later software.
func (l *eventLog) checkSeparators() error {
	for pcr := range 8 {
		count := 0
		for i := range l.events[pcr] {
			if _, ok := separatorOf(&l.events[pcr][i]); ok {
				count++
			}
		}
		if count != 1 {
			return refuse(LogSeparator, "PCR %d has %d separators, want 1", pcr, count)
		}
	}
	return nil
}

// separatorOf returns the separator that an event's digest is of.
func separatorOf(e *event) (string, bool) {
	switch e.digest {
	case sha256.Sum256([]byte("\x00\x00\x00\x00")):
		return "00000000", true
	case sha256.Sum256([]byte("\xff\xff\xff\xff")):
		return "ffffffff", true
	default:
		return "", false
	}
}
