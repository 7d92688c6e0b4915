package attest

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"keywright.dev/kms/eventlog"
)

const (
	// MaxLog bounds an event log, in bytes.
	MaxLog = eventlog.MaxBytes
	// loggedPCRs is one more than the highest PCR that is replayed.
	loggedPCRs = 15
)

// Event types of the TCG PC Client Platform Firmware Profile, section 10.4.1.
const (
	evSeparator         = 0x00000004
	evAction            = 0x00000005
	evEventTag          = 0x00000006
	evCRTMVersion       = 0x00000008
	evIPL               = 0x0000000d
	evVariableConfig    = 0x80000001
	evVariableBoot      = 0x80000002
	evBootApplication   = 0x80000003
	evGPT               = 0x80000006
	evEFIAction         = 0x80000007
	evFirmwareBlob      = 0x80000008
	evHandoffTables     = 0x80000009
	evFirmwareBlob2     = 0x8000000a
	evHandoffTables2    = 0x8000000b
	evVariableBoot2     = 0x8000000c
	evVariableAuthority = 0x800000e0
)

const localityPrefix = "StartupLocality\x00"

// event is one TCG_PCR_EVENT2 with its SHA-256 digest. Only pcr and digest are
// covered, by replay; data where it hashes to the digest.
type event struct {
	pcr    uint32
	kind   uint32
	digest [sha256.Size]byte
	data   []byte
}

// covered tells whether the digest is that of the data.
func (e *event) covered() bool { return sha256.Sum256(e.data) == e.digest }

// eventLog is a parsed log: the extending events of PCRs 0 to 14 in order,
// one list a PCR, and the locality that PCR 0 started from.
type eventLog struct {
	events   [loggedPCRs][]event
	locality byte
}

// parseLog reads an event log and sorts its events by PCR.
func parseLog(data []byte) (*eventLog, error) {
	events, err := eventlog.Parse(data)
	if err != nil {
		var refused *eventlog.Error
		if errors.As(err, &refused) {
			return nil, &Error{Code(refused.Code), refused.Detail}
		}
		return nil, err
	}
	log := new(eventLog)
	for _, e := range events {
		if err := log.add(event{pcr: e.PCR, kind: e.Type, digest: e.Digest, data: e.Data}); err != nil {
			return nil, err
		}
	}
	return log, nil
}

// add takes one event. What is not extended says nothing but the locality;
// what is extended into a PCR that is not replayed says nothing at all.
func (l *eventLog) add(e event) error {
	switch {
	case e.kind == eventlog.NoAction:
		return l.addLocality(e)
	case e.pcr < loggedPCRs && e.pcr != imaPCR:
		l.events[e.pcr] = append(l.events[e.pcr], e)
	}
	return nil
}

// addLocality takes the locality that the TPM was started from, which is the
// value that PCR 0 starts with (section 10.4.5.3).
func (l *eventLog) addLocality(e event) error {
	value, ok := bytes.CutPrefix(e.data, []byte(localityPrefix))
	if !ok {
		return nil
	}
	if e.pcr != 0 || len(value) != 1 || value[0] != 0 && value[0] != 3 && value[0] != 4 {
		return refuse(LogLocality, "the startup locality is not 0, 3 or 4 of PCR 0")
	}
	if l.locality != 0 || len(l.events[0]) > 0 {
		return refuse(LogLocality, "the startup locality is told twice, or after PCR 0 was extended")
	}
	l.locality = value[0]
	return nil
}
