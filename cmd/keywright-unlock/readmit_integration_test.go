//go:build integration

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/unlock"
)

func (s *service) letEnrollAgain(t *testing.T, machine string) {
	t.Helper()
	_, err := s.ReadmitMachine(t.Context(), operator(), machine, kms.Readmission{Reenroll: true})
	require.NoError(t, err)
}

func (s *service) alarms(t *testing.T, kind kms.Alarm) int64 {
	t.Helper()
	counts, err := s.store.Counts(t.Context())
	require.NoError(t, err)
	return counts.Alarms[kind]
}

// A machine that left has its old disk and TPM.
func TestMachineThatLeftEnrollsAgain(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	g.leaves()
	out := g.fails(unlock.ExitRefused, passphrase, g.enrollArgs(s)...)
	assert.Contains(t, out, "KW-1213")
	assert.Contains(t, out, "a copied vTPM?")
	assert.Contains(t, out, "keywright machine readmit --re-enroll")
	s.letEnrollAgain(t, g.machine())
	g.enroll(s)
	g.requireEnrolled()
	assert.Zero(t, s.alarms(t, kms.AlarmCopied), "its disk is its own")
	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)
	assert.Zero(t, s.alarms(t, kms.AlarmForeign))
}

// One that did not leave has a keyslot and token of what it was before.
func TestEnrollingAgainReplacesTheKeyslot(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	before := header(t, g.volumes[0]).OwnTokens()[0].Volume
	s.letEnrollAgain(t, g.machine())
	assert.Contains(t, g.enroll(s), "note: killing keyslot")
	g.requireEnrolled()
	assert.NotEqual(t, before, header(t, g.volumes[0]).OwnTokens()[0].Volume)
	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)
}
