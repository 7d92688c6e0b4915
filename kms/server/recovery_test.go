package server_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
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
	key, err := r.operator().RecoveryKey(t.Context(), m.Volumes[0].ID, 0)
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

// What an operator's connection carries is sealed to a key of his command's.
func TestRecoveryKeyIsSealedToWhoAsked(t *testing.T) {
	r := newRig(t, nil)
	m := r.active("web-17")
	volume := m.Volumes[0]
	path := strings.ReplaceAll(api.PathVolumeRecoveryKey, "{ref}", volume.ID)
	for _, wrong := range []string{`{}`, `{"recipient":""}`, `{"recipient":"AAAA"}`} {
		status, body := r.send("operator", http.MethodPost, path, wrong)
		assert.Equal(t, http.StatusBadRequest, status.StatusCode, "%s: %s", wrong, body)
	}
	seen, err := r.operator().Volume(t.Context(), volume.ID)
	require.NoError(t, err)
	assert.Nil(t, seen.Secrets[1].Disclosed, "nothing was disclosed to nobody's key")

	own, err := exchange.NewRecipient()
	require.NoError(t, err)
	asking, err := json.Marshal(api.DiscloseRecoveryKey{Recipient: own.PublicKey()})
	require.NoError(t, err)
	status, body := r.send("operator", http.MethodPost, path, string(asking))
	require.Equal(t, http.StatusOK, status.StatusCode, body)
	var sealed api.Sealed
	require.NoError(t, json.Unmarshal([]byte(body), &sealed))
	assert.NotContains(t, string(sealed.Response), string(volume.Recovery.Expose()))
	statement, err := exchange.DisclosureStatement(volume.ID, 0, own.PublicKey())
	require.NoError(t, err)
	key, err := own.OpenDisclosure(statement, sealed.Response)
	require.NoError(t, err)
	assert.True(t, key.Equal(volume.Recovery))
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
