package attest_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"keywright.dev/kms/attest"
)

const algSHA1, algSHA256, algSHA384 = 0x04, 0x0b, 0x0c

// specID writes a header event for the given algorithm and size pairs.
func specID(pairs ...uint16) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = le.AppendUint32(spec, uint32(len(pairs)/2))
	for _, v := range pairs {
		spec = le.AppendUint16(spec, v)
	}
	return headerEvent(append(spec, 0))
}

func headerEvent(spec []byte) []byte {
	le := binary.LittleEndian
	header := le.AppendUint32(make([]byte, 4), evNoAction)
	header = le.AppendUint32(append(header, make([]byte, 20)...), uint32(len(spec)))
	return append(header, spec...)
}

func TestAppraiseRefusesLogs(t *testing.T) {
	whole := readLog(t, "ovmf-uki")
	header, events := splitLog(t, whole)
	legacy := headerEvent([]byte("\x08\x00\x00\x00"))
	vendor := specID(algSHA256, 32)
	vendor[len(vendor)-1] = 9
	far := logEvent{pcr: 24, kind: evIPL}
	locality := func(pcr uint32, data string) logEvent {
		return logEvent{pcr, evNoAction, [32]byte{}, []byte("StartupLocality\x00" + data)}
	}
	with := func(first ...logEvent) []byte { return joinLog(header, append(first, events...)) }
	for name, c := range map[string]struct {
		log  []byte
		want attest.Code
	}{
		"nothing":                     {nil, attest.LogMalformed},
		"header cut off":              {whole[:40], attest.LogMalformed},
		"legacy log":                  {legacy, attest.LogLegacy},
		"first event of another kind": {append([]byte{0, 0, 0, 0, 1}, header[5:]...), attest.LogLegacy},
		"first event of another PCR":  {append([]byte{1}, header[1:]...), attest.LogLegacy},
		"no bank":                     {specID(), attest.LogMalformed},
		"nine banks":                  {specID(1, 1, 2, 1, 3, 1, 5, 1, 6, 1, 7, 1, 8, 1, 9, 1, algSHA256, 32), attest.LogMalformed},
		"bank twice":                  {specID(algSHA256, 32, algSHA256, 32), attest.LogMalformed},
		"short SHA-256":               {specID(algSHA256, 20), attest.LogMalformed},
		"long SHA-1":                  {specID(algSHA1, 32, algSHA256, 32), attest.LogMalformed},
		"endless unknown algorithm":   {specID(0x99, 65, algSHA256, 32), attest.LogMalformed},
		"SHA-1 alone":                 {specID(algSHA1, 20), attest.LogBank},
		"SHA-384 alone":               {specID(algSHA384, 48), attest.LogBank},
		"vendor's data cut off":       {vendor, attest.LogMalformed},
		"bytes behind the banks":      {headerEvent(append(specID(algSHA256, 32)[32:], 0)), attest.LogMalformed},
		"event cut off":               {whole[:len(whole)-1], attest.LogMalformed},
		"bytes follow":                {append(bytes.Clone(whole), 0), attest.LogMalformed},
		"fewer digests than declared": {append(specID(algSHA1, 20, algSHA256, 32), whole[len(header):]...), attest.LogMalformed},
		"digest undeclared":           {undeclared(header, events), attest.LogMalformed},
		"digest twice":                {digestTwice(events), attest.LogMalformed},
		"PCR that does not exist":     {joinLog(header, append(events, far)), attest.LogMalformed},
		"too long":                    {make([]byte, attest.MaxLog+1), attest.LogSize},
		"too many events":             {joinLog(header, make([]logEvent, 4097)), attest.LogSize},
		"locality 1":                  {with(locality(0, "\x01")), attest.LogLocality},
		"locality of PCR 1":           {with(locality(1, "\x03")), attest.LogLocality},
		"locality of two bytes":       {with(locality(0, "\x03\x00")), attest.LogLocality},
		"locality twice":              {with(locality(0, "\x03"), locality(0, "\x04")), attest.LogLocality},
		"locality after PCR 0":        {joinLog(header, append(events, locality(0, "\x03"))), attest.LogLocality},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := attest.NewAppraiser(1).Appraise(quoted(t, replay(t, whole)), c.log)
			requireCode(t, c.want, err)
			assert.NotContains(t, err.Error(), "StartupLocality", "no text of the evidence")
		})
	}
}

// undeclared writes an event whose digest is of another algorithm than the
// header declares.
func undeclared(header []byte, events []logEvent) []byte {
	log := joinLog(header, events[:1])
	binary.LittleEndian.PutUint16(log[len(header)+12:], algSHA384)
	return log
}

// digestTwice writes an event with two SHA-256 digests where one of SHA-1 and
// one of SHA-256 are declared.
func digestTwice(events []logEvent) []byte {
	le, e := binary.LittleEndian, events[0]
	log := specID(algSHA1, 20, algSHA256, 32)
	for _, v := range []uint32{e.pcr, e.kind, 2} {
		log = le.AppendUint32(log, v)
	}
	for range 2 {
		log = append(le.AppendUint16(log, algSHA256), e.digest[:]...)
	}
	return le.AppendUint32(log, 0)
}

func TestAppraiseRefusesMissingSeparators(t *testing.T) {
	for pcr := range uint32(8) {
		without := edited(t, "ovmf-uki", func(events []logEvent) []logEvent {
			for i := range events {
				if events[i].kind == evSeparator && events[i].pcr == pcr {
					events[i] = digested(pcr, evIPL, "no separator")
				}
			}
			return events
		})
		_, err := attest.NewAppraiser(0).Appraise(quoted(t, replay(t, without)), without)
		requireCode(t, attest.LogSeparator, err)

		twice := appended(t, "ovmf-uki", digested(pcr, evIPL, "\xff\xff\xff\xff"))
		_, err = attest.NewAppraiser(0).Appraise(quoted(t, replay(t, twice)), twice)
		requireCode(t, attest.LogSeparator, err)
	}
}

// A log may hold digests of several banks in any order, and events of PCRs
// that are not quoted: they say nothing.
func TestAppraiseReadsOtherBanksAndPCRs(t *testing.T) {
	_, events := splitLog(t, readLog(t, "ovmf-uki"))
	le := binary.LittleEndian
	log := specID(algSHA1, 20, algSHA256, 32)
	for _, e := range append(events, digested(10, evIPL, "x"), digested(16, evIPL, "x"), digested(15, evIPL, "x")) {
		for _, v := range []uint32{e.pcr, e.kind, 2} {
			log = le.AppendUint32(log, v)
		}
		log = append(le.AppendUint16(log, algSHA256), e.digest[:]...)
		log = append(le.AppendUint16(log, algSHA1), strings.Repeat("1", 20)...)
		log = append(le.AppendUint32(log, uint32(len(e.data))), e.data...)
	}
	boot, err := attest.NewAppraiser(0).Appraise(quoted(t, replay(t, readLog(t, "ovmf-uki"))), log)
	assert.NoError(t, err)
	assert.True(t, boot.Measurement.Equal(appraise(t, readLog(t, "ovmf-uki")).Measurement))
}
