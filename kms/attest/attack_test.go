package attest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// Attack 7: a log that does not replay, in every way to make one of a log that
// does: an event changed, left out, doubled, or exchanged with the next of its
// PCR.
func TestAttack07AlteredLogDoesNotReplay(t *testing.T) {
	for _, name := range []string{"ovmf-secureboot-uki", "grub-a", "seabios-kernel"} {
		header, events := splitLog(t, readLog(t, name))
		honest := quoted(t, replay(t, readLog(t, name)))
		for i := range events {
			changed := append([]logEvent{}, events...)
			changed[i].digest[0] ^= 1
			requireMismatch(t, honest, joinLog(header, changed))
			requireMismatch(t, honest, joinLog(header, append(append([]logEvent{}, events[:i]...), events[i+1:]...)))
			requireMismatch(t, honest, joinLog(header, append(append([]logEvent{}, events[:i+1]...), events[i:]...)))
			if next := nextOfPCR(events, i); next > 0 && events[next].digest != events[i].digest {
				swapped := append([]logEvent{}, events...)
				swapped[i], swapped[next] = swapped[next], swapped[i]
				requireMismatch(t, honest, joinLog(header, swapped))
			}
		}
	}
}

func requireMismatch(t *testing.T, q attest.Quoted, log []byte) {
	t.Helper()
	_, err := attest.NewAppraiser(0).Appraise(q, log)
	requireCode(t, attest.PCRMismatch, err)
}

// nextOfPCR returns the index of the next event of the same PCR, 0 if none.
func nextOfPCR(events []logEvent, i int) int {
	for next := i + 1; next < len(events); next++ {
		if events[next].pcr == events[i].pcr {
			return next
		}
	}
	return 0
}

// Attack 7: event data changed under a digest that replays. Nothing of it may
// become a claim; the digest it stands beside must.
func TestAttack07DataThatNoDigestCovers(t *testing.T) {
	honest := appraise(t, readLog(t, "ovmf-uki"))
	for name, edit := range map[string]func(*logEvent) bool{
		"Secure Boot shown as enabled": func(e *logEvent) bool {
			matches := e.kind == evVariableConfig && len(e.data) == 53
			e.data[len(e.data)-1] = 1
			return matches
		},
		"dbx shown as db": func(e *logEvent) bool {
			matches := e.kind == evVariableConfig && len(e.data) == 38
			e.data = []byte(efiVariable(securityVendor, "db", "more"))
			return matches
		},
		"action renamed": func(e *logEvent) bool {
			e.data = []byte("Exit Boot Services Invocation")
			return e.kind == evEFIAction && e.pcr == 4
		},
	} {
		t.Run(name, func(t *testing.T) {
			edits := 0
			log := edited(t, "ovmf-uki", func(events []logEvent) []logEvent {
				for i := range events {
					changed := events[i]
					changed.data = append([]byte{}, changed.data...)
					if edit(&changed) {
						events[i], edits = changed, edits+1
					}
				}
				return events
			})
			require.NotZero(t, edits)
			boot := appraise(t, log)
			differences := claims.Diff(honest.Measurement, boot.Measurement)
			require.NotEmpty(t, differences)
			for _, d := range differences {
				assert.True(t, d.Is == "" || d.Name == claims.Unexplained, "%v", d)
			}
			assert.Equal(t, replay(t, log), pcrsOf(t, boot))
		})
	}
}

// Attack 7: what no digest covers is changed everywhere it can be, types and
// data. Whatever the claims then are, they still determine the PCRs: so they
// equal an approved boot's only if the PCRs do.
func TestAttack07FalseTypesNeverHideADigest(t *testing.T) {
	kinds := []uint32{evSeparator, evEFIAction, evIPL, evEventTag, evVariableConfig, evVariableBoot, evVariableBoot2,
		evBootApplication, evBootDriver, evAuthority, 0x80000006, 0x80000008, 0x80000009, 8, 0x1234}
	for _, name := range []string{"ovmf-secureboot-uki", "grub-a", "seabios-kernel"} {
		honest := readLog(t, name)
		for _, kind := range kinds {
			log := edited(t, name, func(events []logEvent) []logEvent {
				for i := range events {
					events[i].kind = kind
				}
				return events
			})
			assert.Equal(t, replay(t, honest), pcrsOf(t, appraise(t, log)), "type 0x%x", kind)
		}
	}
}

// Attack 9: the firmware measured nothing, or into another bank.
func TestAttack09PCRNeverExtended(t *testing.T) {
	log := readLog(t, "ovmf-uki")
	for _, pcr := range []uint{0, 4, 7} {
		values := replay(t, log)
		values.Set(pcr, [32]byte{})
		_, err := attest.NewAppraiser(0).Appraise(quoted(t, values), log)
		requireCode(t, attest.PCRZero, err)
	}
	_, err := attest.NewAppraiser(0).Appraise(quoted(t, exchange.PCRValues{}), nil)
	requireCode(t, attest.PCRZero, err)
}

// Attack 9: firmware that measures, but neither kernel nor initrd.
func TestAttack09LittleMeasuredIsIdentityOnly(t *testing.T) {
	boot := appraise(t, readLog(t, "seabios-kernel"))
	assert.Equal(t, claims.Identity, boot.Tier)

	// Later software can extend events of any name; it comes behind the
	// separators and cannot add a Secure Boot state before them.
	boot = appraise(t, appended(t, "seabios-kernel",
		digested(7, evVariableConfig, efiVariable(globalVendor, "SecureBoot", "\x01")),
		digested(4, evBootApplication, "an application"),
		logEvent{9, evEventTag, sha256.Sum256([]byte("cmdline")), []byte("\xed\x22\x3b\x8f")},
		logEvent{9, evEventTag, sha256.Sum256([]byte("initrd")), []byte("\xec\x22\x3b\x8f")},
	))
	assert.Equal(t, claims.Identity, boot.Tier)
	assert.False(t, boot.Measurement.Has(claims.SecureBoot))
}

// ordersAfter checks how counters follow one last seen.
func ordersAfter(t *testing.T, cases map[string]struct {
	now  attest.Counters
	want attest.Order
}) {
	t.Helper()
	last := attest.Counters{ResetCount: 7, RestartCount: 3, Clock: 1000, Safe: true}
	for name, c := range cases {
		assert.Equal(t, c.want, c.now.Since(last), name)
	}
}

// Attack 14: a TPM that was reset, to extend its PCRs again, has counted that.
func TestAttack14ResetIsCounted(t *testing.T) {
	ordersAfter(t, map[string]struct {
		now  attest.Counters
		want attest.Order
	}{
		"the same moment":               {attest.Counters{ResetCount: 7, RestartCount: 3, Clock: 1000}, attest.SameBoot},
		"later in the same boot":        {attest.Counters{ResetCount: 7, RestartCount: 3, Clock: 1001}, attest.SameBoot},
		"next boot":                     {attest.Counters{ResetCount: 8, RestartCount: 0, Clock: 1500}, attest.Advance},
		"next boot after loss of power": {attest.Counters{ResetCount: 8, RestartCount: 0, Clock: 900}, attest.Advance},
		"resumed":                       {attest.Counters{ResetCount: 7, RestartCount: 4, Clock: 1200}, attest.Advance},
		"highest reset count":           {attest.Counters{ResetCount: 1<<32 - 1}, attest.Advance},
	})
}

// Attack 15: the state of a TPM was cloned or rolled back.
func TestAttack15RolledBackStateIsARegression(t *testing.T) {
	ordersAfter(t, map[string]struct {
		now  attest.Counters
		want attest.Order
	}{
		"snapshot of an earlier boot":     {attest.Counters{ResetCount: 6, RestartCount: 9, Clock: 9000, Safe: true}, attest.Regression},
		"restart taken back":              {attest.Counters{ResetCount: 7, RestartCount: 2, Clock: 5000, Safe: true}, attest.Regression},
		"clock set back":                  {attest.Counters{ResetCount: 7, RestartCount: 3, Clock: 999, Safe: true}, attest.Regression},
		"clock set back and unsafe":       {attest.Counters{ResetCount: 7, RestartCount: 3, Clock: 999}, attest.Regression},
		"cleared":                         {attest.Counters{Safe: true}, attest.Regression},
		"reset count that wrapped around": {attest.Counters{ResetCount: 0, RestartCount: 9, Clock: 9000}, attest.Regression},
	})
}

// Attack 27: a component that nothing names moves the measurement, and its
// digest is what the difference shows.
func TestAttack27UnknownComponentIsPartOfTheMeasurement(t *testing.T) {
	approved := appraise(t, readLog(t, "ovmf-uki"))
	digest := sha256.Sum256([]byte("a component"))
	digits := hex.EncodeToString(digest[:])
	at := func(pcr, kind uint32, label string) logEvent { return logEvent{pcr, kind, digest, []byte(label)} }
	for name, c := range map[string]struct {
		event logEvent
		want  claims.Difference
	}{
		"option ROM":             {at(2, evBootDriver, "driver"), claims.Difference{Name: claims.Unexplained, Is: "2 " + digits}},
		"extra boot application": {at(4, evBootApplication, ""), claims.Difference{Name: claims.BootApplication, Is: digits}},
		"boot driver":            {at(4, evBootDriver, ""), claims.Difference{Name: claims.Unexplained, Is: "4 " + digits}},
		"unknown action":         {digested(4, evEFIAction, "a component"), claims.Difference{Name: claims.Unexplained, Is: "4 " + digits}},
		"debug mode":             {at(7, evEFIAction, "UEFI Debug Mode"), claims.Difference{Name: claims.Unexplained, Is: "7 " + digits}},
		"firmware of the host":   {at(6, 1, ""), claims.Difference{Name: claims.Unexplained, Is: "6 " + digits}},
		"stub add-on":            {at(12, evIPL, "add-on"), claims.Difference{Name: claims.StubParameter, Is: digits}},
		"unknown in PCR 12":      {at(12, 0x99, "add-on"), claims.Difference{Name: claims.Unexplained, Is: "12 " + digits}},
		"system extension":       {at(13, evIPL, "extension"), claims.Difference{Name: claims.StubExtension, Is: digits}},
		"machine owner key":      {at(14, evIPL, "MokList"), claims.Difference{Name: claims.ShimMOK, Is: digits}},
		"section without a name": {at(11, evIPL, wide(".linux")), claims.Difference{Name: claims.Unexplained, Is: "11 " + digits}},
		"second initrd":          {at(9, evEventTag, "\xec\x22\x3b\x8f"), claims.Difference{Name: claims.Unexplained, Is: "9 " + digits}},
		"boot loader":            {at(8, evIPL, "grub_cmd: ls"), claims.Difference{Name: claims.LoaderCommand, Is: digits}},
		"section name and no more": {digested(11, evIPL, ".linux\x00"),
			claims.Difference{Name: claims.Unexplained, Is: "11 0da293e37ad5511c59be47993769aacb91b243f7d010288e118dc90e95aaef5a"}},
	} {
		t.Run(name, func(t *testing.T) {
			log := appended(t, "ovmf-uki", c.event)
			boot := appraise(t, log)
			found := slices.DeleteFunc(claims.Diff(approved.Measurement, boot.Measurement), func(d claims.Difference) bool {
				return d.Name == claims.LoaderFinding
			})
			assert.Equal(t, []claims.Difference{c.want}, found)
			assert.True(t, boot.Platform.Equal(approved.Platform))
			assert.Equal(t, replay(t, log), pcrsOf(t, boot))
		})
	}
}

// Attack 7: a second value of a variable that has one already.
func TestAttack07SecondSecureBootStateIsUnexplained(t *testing.T) {
	second := digested(7, evVariableConfig, efiVariable(globalVendor, "SecureBoot", "\x01"))
	boot := appraise(t, inserted(t, "ovmf-uki", 7, second))
	assert.Equal(t, []string{claims.Disabled}, boot.Measurement.Values(claims.SecureBoot))
	assert.Len(t, boot.Measurement.Values(claims.Unexplained), 1)
}

// Attack 7: the firmware's separator under a false type, so that what runs later
// seems to be the firmware: it measures that Secure Boot is enabled.
func TestAttack07HiddenSeparatorStillEndsTheFirmware(t *testing.T) {
	const unknown = 0x1234
	state := digested(7, evVariableConfig, efiVariable(globalVendor, "SecureBoot", "\x01"))
	for _, name := range []string{"ovmf-uki", "seabios-kernel"} {
		log := edited(t, name, func(events []logEvent) []logEvent {
			for i := range events {
				// The separator, and the true state of Secure Boot.
				if e := &events[i]; e.pcr == 7 && (e.kind == evSeparator || strings.Contains(string(e.data), wide("SecureBoot"))) {
					e.kind = unknown
				}
			}
			return append(events, state)
		})
		boot := appraise(t, log)
		assert.Empty(t, boot.Measurement.Values(claims.SecureBoot), name)
		assert.Len(t, boot.Measurement.Values(claims.Separator), len(appraise(t, readLog(t, name)).Measurement.Values(claims.Separator)), name)
		assert.Equal(t, claims.Identity, boot.Tier, name)
	}
}

// Attack 7: data that the digest covers and that is no variable.
func TestAttack07MalformedVariableIsUnexplained(t *testing.T) {
	good := efiVariable(securityVendor, "dbx", "x")
	for name, data := range map[string]string{
		"nothing":              "",
		"cut off":              good[:len(good)-1],
		"bytes follow":         good + "x",
		"no name":              efiVariable(securityVendor, "", "x"),
		"space in the name":    efiVariable(securityVendor, "d b", "x"),
		"other than ASCII":     efiVariable(securityVendor, "däb", "x"),
		"half a surrogate":     strings.Replace(good, "d\x00", "\x00\xd8", 1),
		"name longer than all": good[:16] + "\xff\xff\xff\xff\xff\xff\xff\xff" + good[24:],
	} {
		boot := appraise(t, appended(t, "ovmf-uki", digested(7, evAuthority, data)))
		assert.Len(t, boot.Measurement.Values(claims.Unexplained), 1, name)
	}
	boot := appraise(t, appended(t, "ovmf-uki", digested(7, evAuthority, good)))
	assert.Len(t, boot.Measurement.Values(claims.SecureBootAuthority), 1)
}

// Attack 27: what is unknown in the PCRs of the platform moves the platform.
func TestAttack27UnknownPlatformEventIsPartOfThePlatform(t *testing.T) {
	approved := appraise(t, readLog(t, "ovmf-uki"))
	uncovered := digested(5, 0x80000006, "a partition table")
	uncovered.data = []byte("another")
	for _, event := range []logEvent{digested(1, 0x99, "unknown"), digested(5, 0x99, "unknown"), uncovered} {
		boot := appraise(t, appended(t, "ovmf-uki", event))
		assert.True(t, boot.Measurement.Equal(approved.Measurement))
		assert.Equal(t, []string{claims.Unexplained}, namesOf(claims.Diff(approved.Platform, boot.Platform)))
		assert.Len(t, boot.Findings(), 1)
	}
}
