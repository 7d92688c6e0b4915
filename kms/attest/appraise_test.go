package attest_test

import (
	"crypto/sha256"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

func TestEveryRecordedLogReplays(t *testing.T) {
	for _, name := range logNames(t) {
		t.Run(name, func(t *testing.T) {
			log := readLog(t, name)
			values := replay(t, log)
			if recorded, ok := recordedPCRs(t, name); ok {
				values = recorded
			}
			boot, err := attest.NewAppraiser(0).Appraise(quoted(t, values), log)
			require.NoError(t, err)
			assert.Equal(t, wantTier(name), boot.Tier)
			assert.Equal(t, attest.Counters{ResetCount: 5, RestartCount: 2, Clock: 7000, Safe: true}, boot.Counters)
		})
	}
}

func wantTier(name string) claims.Tier {
	switch {
	case strings.HasPrefix(name, "grub-"):
		return claims.Staged
	case strings.HasPrefix(name, "seabios-"):
		return claims.Identity
	default:
		return claims.Exact
	}
}

var digestAtEnd = regexp.MustCompile(`([0-9a-f]{8})[0-9a-f]{56}$`)

// claimsOf lists claims with their digests cut to 8 digits.
func claimsOf(set claims.Set) []string {
	var lines []string
	for c := range set.All() {
		lines = append(lines, digestAtEnd.ReplaceAllString(c.String(), "$1"))
	}
	return lines
}

func TestClaimsOfAUnifiedKernelImage(t *testing.T) {
	boot := appraise(t, readLog(t, "ovmf-secureboot-uki"))
	assert.Equal(t, []string{
		"firmware.crtm 96a296d2",
		"firmware.blob 0946c8dd",
		"firmware.blob a644ed20",
		"separator 0 00000000",
		"separator 2 00000000",
		"separator 3 00000000",
		"action 4 Calling EFI Application from Boot Option",
		"separator 4 00000000",
		"boot.application e7492518",
		"separator 6 00000000",
		"secureboot.state enabled",
		"secureboot.pk a2b1d1bd",
		"secureboot.kek a7373990",
		"secureboot.db 9647c098",
		"secureboot.dbx 1963d580",
		"separator 7 00000000",
		"secureboot.authority db 3e45733d",
		"kernel.cmdline 6452b11d",
		"kernel.initrd d4bcd69b",
		"uki.linux 51349501",
		"uki.osrel 59a77b5f",
		"uki.cmdline f2caa58f",
		"uki.initrd d4bcd69b",
	}, claimsOf(boot.Measurement))
	assert.Equal(t, []string{
		"boot.variable 263d9995",
		"boot.variable 449a7b6c",
		"boot.variable 3197be1e",
		"boot.variable 4d387b02",
		"separator 1 00000000",
		"separator 5 00000000",
		"action 5 Exit Boot Services Invocation",
		"action 5 Exit Boot Services Returned with Success",
	}, claimsOf(boot.Platform))
	assert.Equal(t, []string{
		"tpm.reset-count 5",
		"tpm.restart-count 2",
		"tpm.clock 7000",
		"tpm.clock-safe yes",
		"tpm.firmware 2019102300163636",
		"boot.phase none",
		"pcr15 00000000",
	}, claimsOf(boot.State))
	assert.Empty(t, boot.Findings())
}

func TestSecureBootOffIsNamed(t *testing.T) {
	boot := appraise(t, readLog(t, "ovmf-uki"))
	state, _ := boot.Measurement.One(claims.SecureBoot)
	assert.Equal(t, claims.Disabled, state)
	assert.Len(t, boot.Measurement.Values(claims.BootApplication), 2, "the image and the kernel inside")
}

func TestAnotherDiskMovesThePlatformAlone(t *testing.T) {
	other := edited(t, "ovmf-secureboot-uki", func(events []logEvent) []logEvent {
		entry := slices.IndexFunc(events, func(e logEvent) bool { return e.kind == evVariableBoot && e.data[16] == 8 })
		content := sha256.Sum256([]byte("another device path"))
		events[entry].data = []byte(efiVariable(globalVendor, "Boot0001", "another device path"))
		events[entry].digest = content
		return events
	})
	one, two := appraise(t, readLog(t, "ovmf-secureboot-uki")), appraise(t, other)
	assert.True(t, one.Measurement.Equal(two.Measurement))
	assert.Equal(t, []string{"boot.variable"}, namesOf(claims.Diff(one.Platform, two.Platform)))
}

func namesOf(differences []claims.Difference) []string {
	var names []string
	for _, d := range differences {
		names = append(names, d.Name)
	}
	return names
}

func TestBootVariableWithItsNameIsNamed(t *testing.T) {
	variable := efiVariable(globalVendor, "Boot0007", "somewhere")
	boot := appraise(t, appended(t, "ovmf-uki", digested(1, evVariableBoot2, variable)))
	entries := boot.Platform.Values(claims.BootEntry)
	require.Len(t, entries, 1)
	assert.True(t, strings.HasPrefix(entries[0], "Boot0007 "), entries[0])
}

func TestOutsideCommandLineIsReadWhereItIsCovered(t *testing.T) {
	line := digested(12, evIPL, wide("quiet init=/bin/sh\x00"))
	boot := appraise(t, appended(t, "ovmf-uki", line))
	assert.Equal(t, []string{"quiet init=/bin/sh"}, boot.Measurement.Values(claims.StubCommandLine))

	line.data = []byte(wide("quiet\x00"))
	boot = appraise(t, appended(t, "ovmf-uki", line))
	assert.Empty(t, boot.Measurement.Values(claims.StubCommandLine))
	assert.Len(t, boot.Measurement.Values(claims.StubParameter), 1)
	assert.Len(t, boot.Findings(), 1)
}

func TestPhasesOfSystemdAreKnown(t *testing.T) {
	log := readLog(t, "ovmf-uki")
	for _, phases := range [][]string{
		{"enter-initrd"},
		{"enter-initrd", "leave-initrd", "sysinit", "ready"},
		{"sysinit", "ready"},
	} {
		values := replay(t, log)
		for _, phase := range phases {
			extendPCR(&values, 11, phase)
		}
		boot, err := attest.NewAppraiser(0).Appraise(quoted(t, values), log)
		require.NoError(t, err)
		assert.Equal(t, []string{phases[len(phases)-1]}, boot.State.Values(claims.BootPhase))
		assert.True(t, boot.Measurement.Equal(appraise(t, log).Measurement), "the phase is no part of the measurement")
	}
	for _, phases := range [][]string{{"ready"}, {"leave-initrd"}, {"enter-initrd", "ready"}, {"enter-initrd", "enter-initrd"}} {
		values := replay(t, log)
		for _, phase := range phases {
			extendPCR(&values, 11, phase)
		}
		_, err := attest.NewAppraiser(0).Appraise(quoted(t, values), log)
		requireCode(t, attest.PCRMismatch, err)
	}
}

func extendPCR(values *exchange.PCRValues, pcr uint, text string) {
	value, _ := values.Value(pcr)
	values.Set(pcr, exchange.Extend(value, sha256.Sum256([]byte(text))))
}

func TestStartupLocality(t *testing.T) {
	locality := logEvent{kind: evNoAction, data: []byte("StartupLocality\x00\x03")}
	log := edited(t, "ovmf-uki", func(events []logEvent) []logEvent { return append([]logEvent{locality}, events...) })
	boot := appraise(t, log)
	assert.Equal(t, []string{"3"}, boot.Measurement.Values(claims.FirmwareLocality))
	assert.Equal(t, replay(t, log), pcrsOf(t, boot))
}

func TestPCR15IsReported(t *testing.T) {
	log := readLog(t, "ovmf-uki")
	values := replay(t, log)
	extendPCR(&values, 15, "released")
	boot, err := attest.NewAppraiser(0).Appraise(quoted(t, values), log)
	require.NoError(t, err)
	want, _ := values.Value(15)
	assert.Equal(t, want, boot.PCR15)
}

func TestKnownLogIsComparedAgain(t *testing.T) {
	appraiser := attest.NewAppraiser(2)
	log := readLog(t, "ovmf-uki")
	values := replay(t, log)
	first, err := appraiser.Appraise(quoted(t, values), log)
	require.NoError(t, err)
	second, err := appraiser.Appraise(quoted(t, values), log)
	require.NoError(t, err)
	assert.Equal(t, first, second)

	extendPCR(&values, 4, "something more")
	_, err = appraiser.Appraise(quoted(t, values), log)
	requireCode(t, attest.PCRMismatch, err)
}

func TestManyLogsThroughASmallMemory(t *testing.T) {
	appraiser := attest.NewAppraiser(2)
	for range 2 {
		for _, name := range logNames(t) {
			log := readLog(t, name)
			boot, err := appraiser.Appraise(quoted(t, replay(t, log)), log)
			require.NoError(t, err)
			assert.True(t, boot.Measurement.Equal(appraise(t, log).Measurement))
			assert.LessOrEqual(t, appraiser.Remembered(), 2)
		}
	}
	assert.Equal(t, 2, appraiser.Remembered())
}
