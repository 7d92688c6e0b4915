package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/policy"
)

func TestActiveMachineUsesTheDefaultKeyring(t *testing.T) {
	d := engine(t).UseKeys(web17, policy.Keyring{Name: "default"}, goodBoot(t))
	assert.Equal(t, policy.Decision{Allowed: true, Policies: []string{"use-default-keyring-in-approved-boot"}}, d)
}

func TestUsingKeysIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*policy.Machine, *policy.Keyring, *policy.Boot)
		by     []string
	}{
		"another keyring":          {func(_ *policy.Machine, k *policy.Keyring, _ *policy.Boot) { k.Name = "prod" }, nil},
		"measurement not approved": {func(_ *policy.Machine, _ *policy.Keyring, b *policy.Boot) { b.Approved, b.Matched = false, "" }, nil},
		"platform not approved":    {func(_ *policy.Machine, _ *policy.Keyring, b *policy.Boot) { b.PlatformApproved = false }, nil},
		"machine revoked": {func(m *policy.Machine, _ *policy.Keyring, _ *policy.Boot) { m.Status = "revoked" },
			[]string{"forbid-inactive-machine-using-keys"}},
		"tier identity": {func(_ *policy.Machine, _ *policy.Keyring, b *policy.Boot) {
			b.Measurement = set(t, claims.Measurement, "firmware.crtm aa")
		}, []string{"forbid-identity-tier-using-keys"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, k, b := web17, policy.Keyring{Name: "default"}, goodBoot(t)
			c.change(&m, &k, &b)
			assert.Equal(t, policy.Decision{Policies: c.by}, engine(t).UseKeys(m, k, b))
		})
	}
}

// A site permits another keyring to a group, and the default one to nobody.
func TestSitesSayWhoUsesWhichKeyring(t *testing.T) {
	site := engine(t,
		`@id("web-uses-web") permit (principal in Group::"web", action == Action::"key.use", resource == Keyring::"web");`,
		`@id("no-default") forbid (principal is Machine, action == Action::"key.use", resource == Keyring::"default");`)
	assert.True(t, site.UseKeys(web17, policy.Keyring{Name: "web"}, goodBoot(t)).Allowed)
	assert.False(t, site.UseKeys(db1, policy.Keyring{Name: "web"}, goodBoot(t)).Allowed)
	assert.False(t, site.UseKeys(web17, policy.Keyring{Name: "default"}, goodBoot(t)).Allowed)
	assert.Equal(t, policy.Decision{Errors: []string{"no policy is loaded"}},
		new(policy.Engine).UseKeys(web17, policy.Keyring{Name: "default"}, goodBoot(t)))
	_, ok := site.Action("key.use")
	assert.False(t, ok, "no operator does it")
}
