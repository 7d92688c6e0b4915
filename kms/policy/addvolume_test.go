package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/policy"
)

func TestActiveMachineAddsVolumesInAnApprovedBoot(t *testing.T) {
	d := engine(t).AddVolume(web17, goodBoot(t))
	assert.Equal(t, policy.Decision{Allowed: true, Policies: []string{"add-volume-in-approved-boot"}}, d)
}

func TestAddingIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*policy.Machine, *policy.Boot)
		by     []string
	}{
		"measurement not approved": {func(_ *policy.Machine, b *policy.Boot) { b.Approved, b.Matched = false, "" }, nil},
		"platform not approved":    {func(_ *policy.Machine, b *policy.Boot) { b.PlatformApproved = false }, nil},
		"machine pending":          {func(m *policy.Machine, _ *policy.Boot) { m.Status = "pending" }, []string{"forbid-inactive-machine-adding"}},
		"tier identity": {func(_ *policy.Machine, b *policy.Boot) {
			b.Measurement = set(t, claims.Measurement, "firmware.crtm aa")
		}, []string{"forbid-identity-tier-adding"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, b := web17, goodBoot(t)
			c.change(&m, &b)
			assert.Equal(t, policy.Decision{Policies: c.by}, engine(t).AddVolume(m, b))
		})
	}
}

// A permit of releases permits no addition, and none of additions a release.
func TestAddingIsAnActionOfItsOwn(t *testing.T) {
	release := only(t, `@id("a") permit (principal, action == Action::"boot.release", resource);`)
	assert.False(t, release.AddVolume(web17, goodBoot(t)).Allowed)
	add := only(t, `@id("a") permit (principal, action == Action::"volume.add", resource);`)
	assert.True(t, add.AddVolume(web17, goodBoot(t)).Allowed)
	assert.False(t, add.Release(web17, root, goodBoot(t)).Allowed)
	site := engine(t, `@id("no-new-disks") forbid (principal in Group::"web", action == Action::"volume.add", resource);`)
	assert.False(t, site.AddVolume(web17, goodBoot(t)).Allowed)
	assert.True(t, site.AddVolume(db1, goodBoot(t)).Allowed)
	assert.True(t, site.Release(web17, root, goodBoot(t)).Allowed)
	assert.Equal(t, policy.Decision{Errors: []string{"no policy is loaded"}}, new(policy.Engine).AddVolume(web17, goodBoot(t)))
	_, ok := site.Action("volume.add")
	assert.False(t, ok, "no operator does it")
}
