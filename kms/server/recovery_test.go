package server_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
)

// TestRecoveryKeysAreDisclosedToWhoMay holds that a recovery key that policy
// keeps from an operator stays with the service, whatever else he may do.
func TestRecoveryKeysAreDisclosedToWhoMay(t *testing.T) {
	site := filepath.Join(t.TempDir(), "site.cedar")
	require.NoError(t, os.WriteFile(site, []byte(`@id("two-people-open-the-safe")
forbid (principal, action in Action::"disclose", resource)
unless { action == Action::"server.backup" };
`), 0o600))
	r := newRig(t, func(c *config.Config) { c.Policy.Files = []string{site} })
	m := r.active("web-17")
	key, err := r.operator().RecoveryKey(t.Context(), m.Volumes[0].ID)
	refusedWith(t, api.CodeForbidden, err)
	assert.Zero(t, key.Len())
	_, err = r.operator().RecoveryCopies(t.Context(), api.ListQuery{})
	refusedWith(t, api.CodeForbidden, err)
	found, err := r.operator().AuditEntries(t.Context(), api.ListQuery{Action: "volume.recovery_key"})
	require.NoError(t, err)
	require.Len(t, found.Items, 1)
	assert.Equal(t, "refused", found.Items[0].Outcome)
	assert.Equal(t, "volume/"+m.Volumes[0].ID, found.Items[0].Object)
	volume, err := r.operator().Volume(t.Context(), m.Volumes[0].ID)
	require.NoError(t, err)
	assert.Nil(t, volume.Secrets[1].Disclosed)
}

func TestRecoveryCopiesInPages(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	r := newRig(t, func(c *config.Config) { c.Recovery.AgeRecipients = []string{identity.Recipient().String()} })
	var want []string
	for _, name := range []string{"web-17", "web-18", "web-19"} {
		m := r.machine(name)
		m.NoRecoveryKey = name == "web-18"
		require.NoError(t, m.Enroll(t.Context(), r.guest("127.0.0.1")))
		for _, v := range m.Volumes {
			if !m.NoRecoveryKey {
				want = append(want, v.ID)
			}
		}
	}
	slices.Sort(want)
	var got []string
	for c, err := range api.All(api.ListQuery{Limit: 2}, func(q api.ListQuery) (api.Page[api.RecoveryCopy], error) {
		return r.operator().RecoveryCopies(t.Context(), q)
	}) {
		require.NoError(t, err)
		got = append(got, c.Volume)
	}
	assert.Equal(t, want, got)
	one, err := r.operator().RecoveryCopies(t.Context(), api.ListQuery{Volume: want[0]})
	require.NoError(t, err)
	require.Len(t, one.Items, 1)
	assert.Equal(t, want[0], one.Items[0].Volume)
}
