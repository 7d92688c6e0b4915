package kms_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
)

// A rekey that was cut leaves a token without a keyslot, a keyslot that its token
// only announces, or a token whose keyslot is gone: that is foreign to nobody as long
// as the rekey goes on.
func TestCutRekeyRaisesNoAlarm(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	v := &m.Volumes[0]
	f.order(m, false)
	got, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	token := exchange.LUKSToken{ID: 10, Type: "keywright", Slots: []int{}, Volume: v.ID, Version: 2, Announced: []int{3}}
	v.Tokens = []exchange.LUKSToken{token}
	f.unlock(m)
	assert.Empty(t, f.entries(m.TPM.Machine(), kms.ActionForeign), "a token without a keyslot")
	slot := exchange.LUKSSlot{ID: 3, KDF: "pbkdf2", Priority: 1, Mark: "00000002"}
	v.Slots = append(v.Slots, slot)
	f.unlock(m)
	assert.Empty(t, f.entries(m.TPM.Machine(), kms.ActionForeign), "a keyslot that is announced")

	v.Tokens, v.Slots = nil, v.Slots[:len(v.Slots)-1]
	v.AddKeyslot(2, got.Next)
	_, err = m.Report(ctx, f.guest(), 0, exchange.RekeyedDetails{Version: 2})
	require.NoError(t, err)
	v.KillKeyslots(2)
	v.Tokens = []exchange.LUKSToken{{ID: 7, Type: "keywright", Slots: []int{}, Volume: v.ID, Version: 1, Announced: []int{1}}}
	f.unlock(m)
	assert.Empty(t, f.entries(m.TPM.Machine(), kms.ActionForeign), "a token whose keyslot is gone")
	_, err = m.Report(ctx, f.guest(), 0, exchange.RekeyedDetails{Version: 2, Done: true})
	refusedFor(t, kms.ReasonVolume, err)
	v.Tokens = nil
	_, err = m.Report(ctx, f.guest(), 0, exchange.RekeyedDetails{Version: 2, Done: true})
	require.NoError(t, err)
	f.rekeyed(m)
}

// TestAttack20KeyslotBesideARekey adds keyslots that look as if they were of the
// rekey: one that is announced twice, and one that a second token names.
func TestAttack20KeyslotBesideARekey(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	v := &m.Volumes[0]
	f.order(m, false)
	got, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	v.AddKeyslot(2, got.Next)
	f.unlock(m)
	require.Zero(t, f.alarms(kms.AlarmForeign))
	v.Slots = append(v.Slots, exchange.LUKSSlot{ID: 9, KDF: "pbkdf2", Priority: 1, Mark: "0badc0de"})
	for name, token := range map[string]exchange.LUKSToken{
		"announced": {ID: 20, Type: "keywright", Slots: []int{}, Volume: v.ID, Version: 2, Announced: []int{9}},
		"assigned":  {ID: 20, Type: "keywright", Slots: []int{9}, Volume: v.ID, Version: 2},
		"older":     {ID: 20, Type: "keywright", Slots: []int{9}, Volume: v.ID, Version: 1},
	} {
		t.Run(name, func(t *testing.T) {
			v.Tokens = []exchange.LUKSToken{token}
			f.unlock(m)
			assert.EqualValues(t, 1, f.alarms(kms.AlarmForeign))
		})
	}
}
