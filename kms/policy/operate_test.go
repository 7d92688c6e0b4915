package policy_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/policy"
)

// resources has one object of each kind.
func resources() map[string]policy.Resource {
	return map[string]policy.Resource{
		"Machine": web17, "Volume": root, "Service": policy.Service{}, "Log": policy.Log{},
		"Measurement": policy.Measurement{ID: "ab", Group: "web"}, "Keyring": policy.Keyring{Name: "prod"},
	}
}

func now() policy.Call { return policy.Call{Time: time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)} }

// TestRoleMatrix is the table of docs/policy.md.
func TestRoleMatrix(t *testing.T) {
	all := []policy.Class{policy.Read, policy.Propose, policy.Maintain, policy.Protect, policy.Grant, policy.Destroy, policy.Use, policy.Disclose}
	for role, classes := range map[policy.Role][]policy.Class{
		policy.RoleViewer:   {policy.Read},
		policy.RoleOperator: {policy.Read, policy.Propose, policy.Maintain, policy.Protect, policy.Grant},
		policy.RoleSecurity: {policy.Read, policy.Maintain, policy.Protect, policy.Destroy},
		policy.RoleAuditor:  {policy.Read},
		policy.RoleAdmin:    all,
		"":                  nil,
		"stranger":          nil,
	} {
		e := engine(t)
		for _, action := range e.Actions() {
			want := slices.Contains(classes, action.Class) && !(role == policy.RoleViewer && action.Resource == "Log")
			o := policy.Operator{ID: "uid/1000", Roles: []policy.Role{role}}
			d := e.Operate(o, action.Name, resources()[action.Resource], now())
			assert.Equal(t, want, d.Allowed, "%s %s: %s", role, action.Name, d)
			assert.Empty(t, d.Errors)
		}
	}
}

func TestOperatorWithoutARoleMayDoNothing(t *testing.T) {
	d := engine(t).Operate(policy.Operator{ID: "uid/0"}, "server.status", policy.Service{}, now())
	assert.Equal(t, policy.Decision{}, d)
}

func TestEveryDecisionNamesItsPolicies(t *testing.T) {
	both := policy.Operator{ID: "alex", Roles: []policy.Role{policy.RoleViewer, policy.RoleAdmin}}
	d := engine(t).Operate(both, "machine.list", policy.Service{}, now())
	assert.Equal(t, policy.Decision{Allowed: true, Policies: []string{"admin-may-all", "viewer-reads"}}, d)
}

func TestActionsAreWhatTheSchemaSays(t *testing.T) {
	e := engine(t)
	actions := e.Actions()
	assert.True(t, slices.IsSortedFunc(actions, func(a, b policy.Action) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	}))
	for name, want := range map[string]policy.Action{
		"machine.list":            {Name: "machine.list", Class: policy.Read, Resource: "Service"},
		"machine.approve":         {Name: "machine.approve", Class: policy.Grant, Resource: "Machine"},
		"machine.revoke":          {Name: "machine.revoke", Class: policy.Protect, Resource: "Machine"},
		"measurement.submit":      {Name: "measurement.submit", Class: policy.Propose, Resource: "Measurement"},
		"measurement.approve":     {Name: "measurement.approve", Class: policy.Grant, Resource: "Measurement"},
		"audit.export":            {Name: "audit.export", Class: policy.Read, Resource: "Log"},
		"keyring.rotate":          {Name: "keyring.rotate", Class: policy.Maintain, Resource: "Keyring"},
		"keyring.destroy":         {Name: "keyring.destroy", Class: policy.Destroy, Resource: "Keyring"},
		"keyring.dismiss_outside": {Name: "keyring.dismiss_outside", Class: policy.Destroy, Resource: "Keyring"},
		"server.backup":           {Name: "server.backup", Class: policy.Disclose, Resource: "Service"},
	} {
		got, ok := e.Action(name)
		assert.True(t, ok, name)
		assert.Equal(t, want, got)
		assert.Contains(t, actions, want)
	}
	for _, a := range actions {
		assert.Contains(t, resources(), a.Resource)
	}
	for _, none := range []string{"boot.release", "read", "grant", "", "machine.destroy"} {
		_, ok := e.Action(none)
		assert.False(t, ok, none)
	}
	_, ok := new(policy.Engine).Action("machine.list")
	assert.False(t, ok)
	assert.Empty(t, new(policy.Engine).Actions())
	assert.Contains(t, policy.Schema(), `action "boot.release"`)
}

func TestOperateRefusesWhatTheSchemaDoesNotHave(t *testing.T) {
	admin := policy.Operator{ID: "uid/0", Roles: []policy.Role{policy.RoleAdmin}}
	e := engine(t)
	for reason, d := range map[string]policy.Decision{
		`there is no action "machine.destroy"`:                          e.Operate(admin, "machine.destroy", web17, now()),
		`there is no action "boot.release"`:                             e.Operate(admin, "boot.release", root, now()),
		`there is no action "grant"`:                                    e.Operate(admin, "grant", policy.Service{}, now()),
		`action machine.approve applies to Machine, not to Volume`:      e.Operate(admin, "machine.approve", root, now()),
		`action measurement.approve applies to Measurement, not to Log`: e.Operate(admin, "measurement.approve", policy.Log{}, now()),
		`no policy is loaded`:                                           new(policy.Engine).Operate(admin, "machine.list", policy.Service{}, now()),
	} {
		assert.Equal(t, policy.Decision{Errors: []string{reason}}, d)
	}
}

func TestOperatorPoliciesSeeObjectAndCall(t *testing.T) {
	e := only(t, `@id("web-team") permit (principal == Operator::"alex", action in Action::"grant", resource in Group::"web")
	when { context has source && context.source.isInRange(ip("192.0.2.0/24")) && context.time < datetime("2027-01-01") };`)
	alex := policy.Operator{ID: "alex"}
	call := now()
	require.False(t, e.Operate(alex, "machine.approve", web17, call).Allowed, "no source")
	call.Source = netip.MustParseAddr("192.0.2.9")
	assert.True(t, e.Operate(alex, "machine.approve", web17, call).Allowed)
	assert.True(t, e.Operate(alex, "measurement.approve", policy.Measurement{ID: "ab", Group: "web"}, call).Allowed)
	assert.False(t, e.Operate(alex, "machine.approve", db1, call).Allowed)
	assert.False(t, e.Operate(alex, "measurement.approve", policy.Measurement{ID: "ab"}, call).Allowed)
	assert.False(t, e.Operate(alex, "machine.revoke", web17, call).Allowed)
	assert.False(t, e.Operate(policy.Operator{ID: "sam"}, "machine.approve", web17, call).Allowed)
}

func TestNoMachineActsAsAnOperator(t *testing.T) {
	e := only(t, `@id("all") permit (principal, action, resource);`)
	d := e.Operate(policy.Operator{ID: web17.ID, Roles: []policy.Role{policy.RoleAdmin}}, "boot.release", root, now())
	assert.False(t, d.Allowed)
}

func BenchmarkOperate(b *testing.B) {
	e, o, c := engine(b), policy.Operator{ID: "uid/0", Roles: []policy.Role{policy.RoleAdmin}}, now()
	for b.Loop() {
		if !e.Operate(o, "machine.approve", web17, c).Allowed {
			b.Fatal("refused")
		}
	}
}
