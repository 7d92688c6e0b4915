package policy_test

import (
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/policy"
)

func TestApprovedBootOfAnActiveMachineIsReleased(t *testing.T) {
	d := engine(t).Release(web17, root, goodBoot(t))
	assert.Equal(t, policy.Decision{Allowed: true, Policies: []string{"release-approved-boot"}}, d)
	assert.Equal(t, "allowed by release-approved-boot", d.String())
}

// refusal changes one thing in what would be released.
type refusal struct {
	name   string
	change func(*policy.Machine, *policy.Volume, *policy.Boot)
	by     []string
	text   string
}

func TestReleaseIsRefused(t *testing.T) {
	const nobody = "refused: no policy permits it"
	for _, r := range []refusal{
		{"measurement not approved", func(_ *policy.Machine, _ *policy.Volume, b *policy.Boot) {
			b.Approved, b.Matched = false, ""
		}, nil, nobody},
		{"platform not approved", func(_ *policy.Machine, _ *policy.Volume, b *policy.Boot) {
			b.PlatformApproved = false
		}, nil, nobody},
		{"machine pending", func(m *policy.Machine, _ *policy.Volume, _ *policy.Boot) {
			m.Status = "pending"
		}, []string{"forbid-inactive-machine"}, "refused by forbid-inactive-machine"},
		{"machine of no status", func(m *policy.Machine, _ *policy.Volume, _ *policy.Boot) {
			m.Status = ""
		}, []string{"forbid-inactive-machine"}, "refused by forbid-inactive-machine"},
		{"volume of another machine", func(_ *policy.Machine, v *policy.Volume, _ *policy.Boot) {
			v.Machine = db1
		}, []string{"forbid-foreign-volume"}, "refused by forbid-foreign-volume"},
		{"tier identity", func(_ *policy.Machine, _ *policy.Volume, b *policy.Boot) {
			b.Measurement = set(t, claims.Measurement, "firmware.crtm aa")
		}, []string{"forbid-identity-tier"}, "refused by forbid-identity-tier"},
		{"no evidence at all", func(_ *policy.Machine, _ *policy.Volume, b *policy.Boot) {
			*b = policy.Boot{}
		}, []string{"forbid-identity-tier"}, "refused by forbid-identity-tier"},
		{"everything wrong", func(m *policy.Machine, v *policy.Volume, b *policy.Boot) {
			*m, *v, *b = policy.Machine{}, policy.Volume{Machine: db1}, policy.Boot{}
		}, []string{"forbid-foreign-volume", "forbid-identity-tier", "forbid-inactive-machine"},
			"refused by forbid-foreign-volume, forbid-identity-tier, forbid-inactive-machine"},
	} {
		m, v, b := web17, root, goodBoot(t)
		r.change(&m, &v, &b)
		d := engine(t).Release(m, v, b)
		assert.Equal(t, policy.Decision{Policies: r.by}, d, r.name)
		assert.Equal(t, r.text, d.String(), r.name)
	}
}

// TestCallersStatusCounts: the machine that asks is the one whose status
// counts, even where the volume's row has an older copy of it.
func TestCallersStatusCounts(t *testing.T) {
	revoked := web17
	revoked.Status = "revoked"
	d := engine(t).Release(revoked, root, goodBoot(t))
	assert.Equal(t, []string{"forbid-inactive-machine"}, d.Policies)
}

func TestAttack08NoPolicyNoKey(t *testing.T) {
	denied := policy.Decision{Errors: []string{"no policy is loaded"}}
	var none *policy.Engine
	assert.Equal(t, denied, none.Release(web17, root, goodBoot(t)))
	assert.Equal(t, denied, new(policy.Engine).Release(web17, root, goodBoot(t)))
	assert.Equal(t, "refused: no policy is loaded", denied.String())

	for name, documents := range map[string][]policy.Document{
		"no document":    nil,
		"empty document": {{Name: "a.cedar"}},
		"comments only":  {{Name: "a.cedar", Text: []byte("// permit (principal, action, resource);\n")}},
		"unparsable":     {{Name: "a.cedar", Text: []byte(`@id("a") permit (principal, action, resource)`)}},
		"one unparsable of two": {
			{Name: "a.cedar", Text: []byte(`@id("a") permit (principal, action, resource);`)},
			{Name: "b.cedar", Text: []byte(`@id("b") forbid (principal, action, resource)`)},
		},
	} {
		e, err := policy.New(documents...)
		require.Error(t, err, name)
		assert.Nil(t, e, name)
		assert.Equal(t, denied, e.Release(web17, root, goodBoot(t)), name)
	}
}

func TestAttack08PoliciesForSomethingElseReleaseNothing(t *testing.T) {
	e := only(t, `@id("a") permit (principal is Operator, action, resource);`)
	assert.Equal(t, policy.Decision{}, e.Release(web17, root, goodBoot(t)))
}

// TestAttack08FailingPolicyDenies: a forbid that fails while it is evaluated
// must not be dropped, as Cedar would.
func TestAttack08FailingPolicyDenies(t *testing.T) {
	const failing = `@id("forbid-old-machines") forbid (principal is Machine, action == Action::"boot.release", resource)
	when { decimal(principal.name).lessThan(decimal("1.0")) };`
	const overflow = `@id("forbid-overflow") forbid (principal, action == Action::"boot.release", resource)
	when { context.time.toTime().toMilliseconds() + 9223372036854775807 > 0 };`
	e := engine(t, overflow)
	d := e.Release(web17, root, goodBoot(t))
	assert.False(t, d.Allowed)
	assert.Equal(t, []string{"forbid-overflow"}, d.Policies)
	require.Len(t, d.Errors, 1)
	assert.Contains(t, d.String(), "refused: policy forbid-overflow failed: ")

	_, err := policy.New(policy.Document{Name: "a.cedar", Text: []byte(failing)})
	require.Error(t, err, "what can be seen to fail is refused when it is loaded")
}

func TestForbidOfASiteStandsOverShippedPermits(t *testing.T) {
	e := engine(t, `@id("no-releases-outside") forbid (principal is Machine, action == Action::"boot.release", resource)
	unless { context has source && context.source.isInRange(ip("192.0.2.0/24")) };`)
	b := goodBoot(t)
	for source, allowed := range map[string]bool{
		"192.0.2.7": true, "::ffff:192.0.2.7": true, "198.51.100.1": false, "2001:db8::1": false,
	} {
		b.Source = netip.MustParseAddr(source)
		assert.Equal(t, allowed, e.Release(web17, root, b).Allowed, source)
	}
	b.Source = netip.Addr{}
	assert.Equal(t, []string{"no-releases-outside"}, e.Release(web17, root, b).Policies)
}

// TestEverythingInTheSchemaIsReachable has one condition for each thing that a
// policy can ask of a boot.
func TestEverythingInTheSchemaIsReachable(t *testing.T) {
	for _, condition := range []string{
		`principal == Machine::"7f3a"`, `principal.name == "web-17"`, `principal.status == "active"`,
		`principal in Group::"web"`, `resource in Group::"web"`, `resource in Machine::"7f3a"`,
		`resource == Volume::"v1"`, `resource.machine.name like "web-*"`,
		`context.measurement.approved`, `context.measurement has matched && context.measurement.matched == "m-1"`,
		`context.measurement.digest like "*0*"`, `context.platform.approved`, `context.platform.digest != ""`,
		`context.tier == "exact"`, `context.secureBoot`, `context has source && context.source == ip("192.0.2.7")`,
		`context.time < datetime("2026-03-15")`,
		`context.evidence.hasTag("secureboot.authority") && context.evidence.getTag("secureboot.authority").containsAll(["db 11", "db 22"])`,
		`context.evidence.hasTag("disk.gpt") && context.evidence.getTag("disk.gpt") == ["ee"]`,
		`context.evidence.hasTag("boot.phase") && !context.evidence.hasTag("shim.mok")`,
	} {
		head := `@id("a") permit (principal is Machine, action == Action::"boot.release", resource is Volume) `
		d := only(t, head+"when { "+condition+" };").Release(web17, root, goodBoot(t))
		assert.True(t, d.Allowed, "%s: %s", condition, d)
		d = only(t, head+"unless { "+condition+" };").Release(web17, root, goodBoot(t))
		assert.Equal(t, policy.Decision{}, d, condition)
	}
}

func TestSecureBootIsAClaimOfTheQuote(t *testing.T) {
	e := only(t, `@id("a") permit (principal is Machine, action == Action::"boot.release", resource) when { context.secureBoot };`)
	b := goodBoot(t)
	assert.True(t, e.Release(web17, root, b).Allowed)
	for _, lines := range [][]string{
		{"secureboot.state disabled"}, {"secureboot.state enabled", "secureboot.state disabled"}, {"boot.application aa"},
	} {
		b.Measurement = set(t, claims.Measurement, lines...)
		assert.False(t, e.Release(web17, root, b).Allowed, lines)
	}
}

func TestDecisionsAreEqualEveryTime(t *testing.T) {
	var text string
	for i := range 40 {
		text += `@id("p` + strconv.Itoa(i) + `") forbid (principal, action, resource) when { context.time > datetime("2000-01-01") };` + "\n" +
			`@id("e` + strconv.Itoa(i) + `") permit (principal is Machine, action, resource) when { 9223372036854775807 + context.time.toTime().toMilliseconds() > 1 };` + "\n"
	}
	m, v, b := web17, root, goodBoot(t)
	first := engine(t, text).Release(m, v, b)
	require.Len(t, first.Errors, 40)
	assert.True(t, slices.IsSorted(first.Policies))
	for range 20 {
		assert.Equal(t, first, engine(t, text).Release(m, v, b))
	}
}

func TestEngineServesManyAtOnce(t *testing.T) {
	e, b := engine(t), goodBoot(t)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 200 {
				assert.True(t, e.Release(web17, root, b).Allowed)
				assert.False(t, e.Release(db1, root, b).Allowed)
			}
		})
	}
	wait.Wait()
}

func BenchmarkRelease(b *testing.B) {
	e, boot := engine(b), goodBoot(b)
	b.ReportAllocs()
	for b.Loop() {
		if !e.Release(web17, root, boot).Allowed {
			b.Fatal("refused")
		}
	}
}
