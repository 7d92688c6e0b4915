package attest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
)

// Event types, for the logs that tests write.
const (
	evNoAction        = 0x00000003
	evSeparator       = 0x00000004
	evEFIAction       = 0x80000007
	evIPL             = 0x0000000d
	evEventTag        = 0x00000006
	evVariableConfig  = 0x80000001
	evVariableBoot    = 0x80000002
	evBootApplication = 0x80000003
	evBootDriver      = 0x80000004
	evVariableBoot2   = 0x8000000c
	evAuthority       = 0x800000e0
)

// logEvent is one event of a log in test code: a second, plain parser that
// assumes a sound log with SHA-256 alone, to change and write again.
type logEvent struct {
	pcr, kind uint32
	digest    [32]byte
	data      []byte
}

func digested(pcr, kind uint32, data string) logEvent {
	return logEvent{pcr, kind, sha256.Sum256([]byte(data)), []byte(data)}
}

// splitLog returns the header event and the others.
func splitLog(t testing.TB, log []byte) (header []byte, events []logEvent) {
	t.Helper()
	le := binary.LittleEndian
	size := 32 + int(le.Uint32(log[28:]))
	header, log = log[:size], log[size:]
	for len(log) > 0 {
		require.EqualValues(t, 1, le.Uint32(log[8:]), "digests")
		require.EqualValues(t, 0x0b, le.Uint16(log[12:]))
		end := 50 + int(le.Uint32(log[46:]))
		events = append(events, logEvent{le.Uint32(log), le.Uint32(log[4:]), [32]byte(log[14:46]), bytes.Clone(log[50:end])})
		log = log[end:]
	}
	return header, events
}

func joinLog(header []byte, events []logEvent) []byte {
	le := binary.LittleEndian
	out := bytes.Clone(header)
	for _, e := range events {
		for _, v := range []uint32{e.pcr, e.kind, 1} {
			out = le.AppendUint32(out, v)
		}
		out = append(le.AppendUint16(out, 0x0b), e.digest[:]...)
		out = append(le.AppendUint32(out, uint32(len(e.data))), e.data...)
	}
	return out
}

// edited returns a fixture with its events changed.
func edited(t testing.TB, name string, edit func([]logEvent) []logEvent) []byte {
	t.Helper()
	header, events := splitLog(t, readLog(t, name))
	return joinLog(header, edit(events))
}

// inserted returns a fixture with events put behind the one at index i.
func inserted(t testing.TB, name string, i int, more ...logEvent) []byte {
	t.Helper()
	return edited(t, name, func(events []logEvent) []logEvent {
		return append(append(append([]logEvent{}, events[:i+1]...), more...), events[i+1:]...)
	})
}

// appended returns a fixture with events put at its end.
func appended(t testing.TB, name string, more ...logEvent) []byte {
	t.Helper()
	return edited(t, name, func(events []logEvent) []logEvent { return append(events, more...) })
}

// replay returns the PCRs that a log of sound form leaves behind.
func replay(t testing.TB, log []byte) exchange.PCRValues {
	t.Helper()
	var values exchange.PCRValues
	_, events := splitLog(t, log)
	for _, e := range events {
		if e.kind == evNoAction {
			if locality, ok := bytes.CutPrefix(e.data, []byte("StartupLocality\x00")); ok {
				values[0][31] = locality[0]
			}
			continue
		}
		if value, ok := values.Value(uint(e.pcr)); ok && e.pcr != 15 {
			values.Set(uint(e.pcr), exchange.Extend(value, e.digest))
		}
	}
	return values
}
