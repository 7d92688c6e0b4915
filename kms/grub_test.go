package kms_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/eventlog"
	"keywright.dev/test/sim"
)

// filesOfBoot returns what a guest would have computed from the files of a
// recorded boot by GRUB, which had one initrd.
func filesOfBoot(t *testing.T, log *sim.Log) []byte {
	t.Helper()
	events, err := eventlog.Parse(log.Bytes)
	require.NoError(t, err)
	var programs []string
	var files []eventlog.Event
	var line string
	for _, e := range events {
		const bootApplication = 0x80000003
		switch {
		case e.PCR == 4 && e.Type == bootApplication:
			programs = append(programs, hex.EncodeToString(e.Digest[:]))
		case e.PCR == 8:
			if text, ok := strings.CutPrefix(string(e.Data), "kernel_cmdline: "); ok {
				line = strings.TrimSuffix(text, "\x00")
			}
		case e.PCR == 9:
			files = append(files, e)
		}
	}
	kernel := len(files) - 2
	var list []claims.Claim
	for _, program := range programs[:len(programs)-2] { // the kernel is measured twice
		list = append(list, claims.Claim{Name: claims.BootApplication, Value: program})
	}
	list = append(list, []claims.Claim{
		{Name: claims.KernelImage, Value: programs[len(programs)-1]}, {Name: claims.ImageSignature, Value: claims.Present},
		{Name: claims.LoaderKernel, Value: hex.EncodeToString(files[kernel].Digest[:])}, {Name: claims.CommandLineText, Value: line},
	}...)
	for _, e := range files[:kernel] {
		c := claims.Claim{Name: claims.LoaderFile, Value: hex.EncodeToString(e.Digest[:])}
		if strings.HasSuffix(string(e.Data), "/grubenv\x00") {
			c = claims.Claim{Name: claims.LoaderEnvironment, Value: claims.Present}
		}
		list = append(list, c)
	}
	list = append(list, claims.Claim{Name: claims.LoaderInitrd, Value: hex.EncodeToString(files[kernel+1].Digest[:])})
	set, err := claims.New(claims.Files, list)
	require.NoError(t, err)
	return set.Marshal()
}

// A machine that enrols under one kernel and boots the next one, which it had
// foretold, gets its keys; one with another initrd does not.
func TestPredictedBootByGRUB(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	m.Log = recordedBoot(t, "grub-a")
	m.Boot()
	next := recordedBoot(t, "grub-oldkernel")
	m.NextBoot = filesOfBoot(t, next)
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	f.approve(m)

	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	m.Log = next
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)

	row, err := f.FindMachine(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, string(claims.Staged), row.Tier)
}

// Attack 32: the initrd is the machine's own, and another one is refused with the
// fact that differs.
func TestAttack32InitrdIsReplaced(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	m.Log = recordedBoot(t, "grub-a")
	m.Boot()
	m.NextBoot = filesOfBoot(t, m.Log)
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	f.approve(m)
	m.Log = recordedBoot(t, "grub-newinitrd")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPlatform, err)
	explained, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	var names []string
	for _, d := range explained.Differences {
		names = append(names, d.Name)
	}
	assert.Equal(t, []string{"platform", claims.LoaderInitrd}, names)
}
