package kms_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/envelope"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

// TestAttack21RowsAreSwapped changes the row of a wrapped secret in every way
// that makes it another's, as the owner of the database can.
func TestAttack21RowsAreSwapped(t *testing.T) {
	f := newFixture(t)
	m, other := f.active("web-17"), f.active("web-18")
	own := f.secretOf(m, 0)
	f.rotate(kms.DefaultKeyring)
	for name, c := range map[string]struct {
		change func(*kms.Secret)
		detail string
	}{
		"another machine's":           {func(s *kms.Secret) { s.Wrapped = f.secretOf(other, 0).Wrapped }, "does not open"},
		"another volume's":            {func(s *kms.Secret) { s.Wrapped = f.secretOf(m, 1).Wrapped }, "does not open"},
		"another keyring version's":   {func(s *kms.Secret) { s.KeyringVersion++ }, "does not open"},
		"another keyring's":           {func(s *kms.Secret) { s.Keyring = kms.SystemKeyring }, "does not open"},
		"a later version's":           {func(s *kms.Secret) { s.Version++ }, "does not open"},
		"wrapped for another purpose": {func(s *kms.Secret) { s.Wrapped = f.wrapFor(m, "backup") }, "does not open"},
		"its recovery key":            {func(s *kms.Secret) { s.Wrapped = f.recoveryOf(m, 0).Wrapped }, "does not open"},
		"for another purpose":         {func(s *kms.Secret) { s.Purpose = "backup" }, "no current secret"},
		"another purpose's altogether": {func(s *kms.Secret) {
			s.Purpose, s.Wrapped = "backup", f.wrapFor(m, "backup")
		}, "no current secret"},
	} {
		t.Run(name, func(t *testing.T) {
			row := own
			c.change(&row)
			rows := []kms.Secret{row}
			if row.Purpose != own.Purpose {
				moved := own
				moved.Status = kms.SecretPending
				rows = append(rows, moved)
			}
			f.write(kms.Outcome{Secrets: rows})
			m.Boot()
			_, err := m.Unlock(t.Context(), f.guest())
			refusal := refused(t, kms.ReasonVolume, err)
			assert.Contains(t, refusal.Detail, c.detail)
			if row.Version != own.Version {
				row.Status = kms.SecretPending
				f.write(kms.Outcome{Secrets: []kms.Secret{row}})
			}
			f.write(kms.Outcome{Secrets: []kms.Secret{own}})
			_, err = m.Unlock(t.Context(), f.guest())
			require.NoError(t, err, "the row as it was")
			f.clock.Advance(time.Minute)
		})
	}
}

// secretOf returns the row of a volume's secret.
func (f *fixture) secretOf(m *sim.Machine, volume int) kms.Secret {
	f.t.Helper()
	rows, err := f.store.Secrets(f.t.Context(), m.Volumes[volume].ID)
	require.NoError(f.t, err)
	require.NotEmpty(f.t, rows)
	return rows[0]
}

// recoveryOf returns the row of a volume's recovery key.
func (f *fixture) recoveryOf(m *sim.Machine, volume int) kms.Secret {
	f.t.Helper()
	rows, err := f.store.Secrets(f.t.Context(), m.Volumes[volume].ID)
	require.NoError(f.t, err)
	last := rows[len(rows)-1]
	require.Equal(f.t, kms.PurposeRecovery, last.Purpose)
	return last
}

// wrapFor wraps a secret for a machine's first volume, its TPM's keys and a
// purpose.
func (f *fixture) wrapFor(m *sim.Machine, purpose string) string {
	f.t.Helper()
	ek, err := exchange.CheckEK(m.TPM.EKPublic)
	require.NoError(f.t, err)
	ak, err := exchange.CheckAK(m.TPM.AKPublic)
	require.NoError(f.t, err)
	binding := sha256.Sum256(append(append([]byte(nil), ek.Name...), ak.Name...))
	wrapped, _, err := f.keys.Wrap(envelope.Context{
		Keyring: kms.DefaultKeyring, Binding: binding[:], Machine: m.TPM.Machine(), Volume: m.Volumes[0].ID,
		Purpose: purpose, SecretVersion: 1,
	}, secret.Copy([]byte("another secret of 32 bytes......")))
	require.NoError(f.t, err)
	return wrapped
}
