package kms_test

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// TestAttack19CommitsAreBounded has a machine that nobody approved commit to
// another boot on another platform again and again.
func TestAttack19CommitsAreBounded(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	commit := func(n int) error {
		var err error
		m.Log, err = recordedBoot(t, "ovmf-uki").With(0, 0x8, []byte{byte(n)})
		require.NoError(t, err)
		m.Log, err = m.Log.With(1, 0x80000002, []byte{byte(n)})
		require.NoError(t, err)
		m.Boot()
		f.clock.Advance(time.Minute)
		_, err = m.Commit(t.Context(), f.guest())
		return err
	}
	for n := range 16 {
		require.NoError(t, commit(n))
	}
	for n := range 40 {
		refused(t, kms.ReasonRate, commit(16+n))
	}
	rows, err := f.store.Measurements(t.Context(), "default", "", 1000)
	require.NoError(t, err)
	assert.Len(t, rows, 16)
	platforms, err := f.store.Platforms(t.Context(), m.TPM.Machine())
	require.NoError(t, err)
	assert.Len(t, platforms, 16)
	require.NoError(t, commit(3), "a boot that is known costs nothing")
	f.approve(m)
}

// TestAttack19ClaimsAreBounded commits to a boot of thousands of events.
func TestAttack19ClaimsAreBounded(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	log := recordedBoot(t, "ovmf-uki").Bytes
	for i := range 4000 {
		log = appendUnexplained(log, byte(i), byte(i>>8))
	}
	var err error
	m.Log, err = sim.NewLog(log)
	require.NoError(t, err)
	m.Boot()
	refusal := refused(t, kms.ReasonEventLog, m.Enroll(t.Context(), f.guest()))
	assert.Contains(t, refusal.Detail, "claims")
}

// completion is an honest request for an enrolment's second step, which tests
// falsify.
func completion(t *testing.T, f *fixture, m *sim.Machine, falsify func(*sim.Request)) api.CompleteRequest {
	t.Helper()
	begun, err := f.guest().Begin(t.Context(), api.BeginRequest{Keys: m.Keys()})
	require.NoError(t, err)
	r, err := m.Prepare(exchange.PurposeEnroll, begun.Challenge)
	require.NoError(t, err)
	falsify(r)
	c, err := r.CompleteRequest(begun)
	require.NoError(t, err)
	return c
}

// TestAttack19CertificateIsBounded enrols with a certificate that is no such
// thing, and long.
func TestAttack19CertificateIsBounded(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	c := completion(t, f, m, func(*sim.Request) {})
	c.Keys.EKCertificate = make([]byte, 8<<10+1)
	_, err := f.guest().Complete(t.Context(), c)
	refused(t, kms.ReasonKeys, err)
	_, err = f.guest().Begin(t.Context(), api.BeginRequest{Keys: c.Keys})
	refused(t, kms.ReasonKeys, err)
	c.Keys.EKCertificate = make([]byte, 8<<10)
	_, err = f.guest().Complete(t.Context(), c)
	require.NoError(t, err)
}

// TestAttack19RefusalsOfStrangersAreCounted has TPMs of one's own making cause
// refusals: nobody is behind them that an entry could be about.
func TestAttack19RefusalsOfStrangersAreCounted(t *testing.T) {
	f := newFixture(t)
	stranger := func() *sim.Machine {
		m := f.machine("x")
		c := completion(t, f, m, func(r *sim.Request) { r.Statement.ServiceKey = [32]byte{1} })
		_, err := f.guest().Complete(t.Context(), c)
		refused(t, kms.ReasonServiceKey, err)
		return m
	}
	before, err := f.store.Counts(t.Context())
	require.NoError(t, err)
	for range 20 {
		stranger()
	}
	after, err := f.store.Counts(t.Context())
	require.NoError(t, err)
	assert.Equal(t, before, after)
	require.NoError(t, f.FlushAggregates(t.Context()))
	found, err := f.store.LatestEntries(t.Context(), "", "", 10)
	require.NoError(t, err)
	require.Len(t, found, 1)
	entry, err := f.Log.Verifier().Verify(found[0].Signed)
	require.NoError(t, err)
	assert.Equal(t, kms.ActionUnproven, entry.Action)
	assert.EqualValues(t, 20, entry.Count)

	m := stranger()
	require.NoError(t, m.Enroll(t.Context(), f.guest()), "its owner put it right")
	c := completion(t, f, m, func(r *sim.Request) { r.Statement.ServiceKey = [32]byte{1} })
	_, err = f.guest().Complete(t.Context(), c)
	refused(t, kms.ReasonServiceKey, err)
	assert.Equal(t, "service_key", f.lastEntry(m.TPM.Machine()).Code, "now there is a machine that it is about")
}

// TestAttack19EnrolmentsOfOneMachineAreLimited begins anew with one TPM.
func TestAttack19EnrolmentsOfOneMachineAreLimited(t *testing.T) {
	f := newFixture(t)
	m := f.machine("x")
	for range 20 {
		forget(m)
		require.NoError(t, m.Complete(t.Context(), f.guest()))
	}
	forget(m)
	refused(t, kms.ReasonRate, m.Complete(t.Context(), f.guest()))
	_, err := m.Commit(t.Context(), f.guest())
	refused(t, kms.ReasonRate, err)
	f.clock.Advance(6 * time.Second)
	require.NoError(t, m.Complete(t.Context(), f.guest()))
}

// appendUnexplained adds an event to PCR 13 of a SHA-256 log.
func appendUnexplained(log []byte, data ...byte) []byte {
	digest := sha256.Sum256(data)
	for _, n := range []uint32{13, 0x0d, 1} { // PCR, EV_IPL, digests
		log = binary.LittleEndian.AppendUint32(log, n)
	}
	log = binary.LittleEndian.AppendUint16(log, 0x0b)
	log = append(log, digest[:]...)
	return binary.LittleEndian.AppendUint32(log, 0)
}
