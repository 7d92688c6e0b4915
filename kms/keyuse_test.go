package kms_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
)

// servedKeyring has default@1 disabled, once it wrapped for an operator.
func servedKeyring(t *testing.T) (f *fixture, wrapped exchange.KeyItem) {
	t.Helper()
	f = newFixture(t)
	wrapped.Wrapped = f.operate(exchange.KeyWrap, kms.DefaultKeyring, exchange.KeyItem{Plaintext: plain("s")})[0].Wrapped
	_, err := f.RotateKeyring(t.Context(), operator(), kms.DefaultKeyring, 0)
	require.NoError(t, err)
	_, err = f.DisableKeyring(t.Context(), operator(), f.version("default@1"))
	require.NoError(t, err)
	return f, wrapped
}

func (f *fixture) dismiss() {
	f.t.Helper()
	_, err := f.DismissOutside(f.t.Context(), operator(), f.version("default@1"), kms.Dismissal{Reason: "all rewrapped"})
	require.NoError(f.t, err)
}

func (f *fixture) scheduleDestroy() error {
	f.t.Helper()
	_, err := f.ScheduleDestroy(f.t.Context(), operator(), f.version("default@1"), kms.MinDestroyWait)
	return err
}

// lastOf returns the newest entry of an action.
func (f *fixture) lastOf(action string) audit.Entry {
	f.t.Helper()
	entries, err := f.store.LatestEntries(f.t.Context(), "", action, 1)
	require.NoError(f.t, err)
	require.Len(f.t, entries, 1)
	entry, err := f.Log.Verifier().Verify(entries[0].Signed)
	require.NoError(f.t, err)
	return entry
}

func (f *fixture) outside() []kms.Dependent {
	f.t.Helper()
	on, next, err := f.DependentsOn(f.t.Context(), f.version("default@1"), "", 10)
	require.NoError(f.t, err)
	assert.Empty(f.t, next)
	return on
}

// What was wrapped for others has no row, and still nobody destroys what opens it
// before a person said that nothing needs it.
func TestCiphertextsOutsideKeepAVersionUntilTheyAreDismissed(t *testing.T) {
	f, _ := servedKeyring(t)
	now := f.clock.Now()
	use := kms.KeyringUse{Keyring: "default", Version: 1, First: now, Last: now, Wraps: 1}
	want := []kms.Dependent{{Kind: kms.DependentOutside, Object: "ciphertexts/outside", Purpose: "application", Use: &use}}
	assert.Equal(t, want, f.outside())
	var inUse *kms.InUseError
	require.ErrorAs(t, f.scheduleDestroy(), &inUse)
	assert.Equal(t, &kms.InUseError{Keyring: "default", Version: 1, Outside: true}, inUse)
	assert.Contains(t, inUse.Error(), "`keywright keyring dismiss-outside default@1 --reason …`")
	assert.NotContains(t, inUse.Error(), "secrets")

	f.clock.Advance(time.Hour)
	try := operator()
	try.DryRun = true
	would, err := f.DismissOutside(t.Context(), try, f.version("default@1"), kms.Dismissal{Reason: "all rewrapped"})
	require.NoError(t, err)
	assert.Equal(t, want, f.outside())
	use.Dismissed, use.DismissedBy = f.clock.Now(), "operator/uid/0"
	assert.Equal(t, &use, would)

	f.dismiss()
	assert.Empty(t, f.outside())
	k, err := f.FindKeyring(t.Context(), "default")
	require.NoError(t, err)
	assert.Equal(t, &use, k.Use(1))
	assert.Zero(t, k.Count(1))
	entry := f.lastOf(kms.ActionDismissOutside)
	assert.Equal(t, []string{"keyring/default@1", "uid/0", "done"}, []string{entry.Object, entry.Actor.ID, string(entry.Outcome)})
	assert.Equal(t, map[string]string{
		"reason": "all rewrapped", "status": "disabled", "uses.wraps": "1", "uses.unwraps": "0",
		"uses.first": now.Format(time.RFC3339), "uses.last": now.Format(time.RFC3339),
	}, facts(entry))

	require.NoError(t, f.scheduleDestroy())
	f.clock.Advance(kms.MinDestroyWait)
	require.NoError(t, f.TendKeyrings(t.Context()))
	assert.Equal(t, kms.KeyringDestroyed, f.version("default@1").Status)
}

func TestOutsideIsNotDismissed(t *testing.T) {
	version := func(ref string) func(*fixture) *kms.KeyringVersion {
		return func(f *fixture) *kms.KeyringVersion { return f.version(ref) }
	}
	reason := kms.Dismissal{Reason: "all rewrapped"}
	for name, c := range map[string]struct {
		prepare   func(*testing.T, *fixture, exchange.KeyItem)
		version   func(*fixture) *kms.KeyringVersion
		dismissal kms.Dismissal
		want      string
	}{
		"without a reason":    {nil, version("default@1"), kms.Dismissal{Reason: " \n"}, "there is no reason"},
		"with a long reason":  {nil, version("default@1"), kms.Dismissal{Reason: strings.Repeat("x", 5000)}, "longer than 4096 bytes"},
		"of what was not":     {nil, version("system@1"), reason, "it never served the key API"},
		"where it was unused": {nil, version("default@2"), reason, "it never served the key API"},
		"of the current version": {func(_ *testing.T, f *fixture, _ exchange.KeyItem) {
			f.operate(exchange.KeyDataKey, kms.DefaultKeyring, exchange.KeyItem{Size: 32})
		}, version("default@2"), reason, "run `keywright keyring rotate default`, then `keywright keyring disable default@2`"},
		"of an enabled version": {func(t *testing.T, f *fixture, _ exchange.KeyItem) {
			_, err := f.EnableKeyring(t.Context(), operator(), f.version("default@1"))
			require.NoError(t, err)
		}, version("default@1"), reason, "it is enabled: run `keywright keyring disable default@1` first"},
		"twice":              {func(_ *testing.T, f *fixture, _ exchange.KeyItem) { f.dismiss() }, version("default@1"), reason, "operator/uid/0 dismissed that at "},
		"after it is used":   {nil, version("default@1"), kms.Dismissal{Reason: "x", Uses: 2}, "somebody used it meanwhile"},
		"of what is no more": {destroyFirst, version("default@1"), reason, "it is destroyed"},
		"of what never was":  {nil, func(*fixture) *kms.KeyringVersion { return &kms.KeyringVersion{Keyring: "default", Version: 9} }, reason, "not found"},
		"in no keyring":      {nil, func(*fixture) *kms.KeyringVersion { return &kms.KeyringVersion{Keyring: "none", Version: 1} }, reason, "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			f, item := servedKeyring(t)
			if c.prepare != nil {
				c.prepare(t, f, item)
			}
			before, err := f.store.KeyringUses(t.Context())
			require.NoError(t, err)
			_, err = f.DismissOutside(t.Context(), operator(), c.version(f), c.dismissal)
			require.ErrorContains(t, err, c.want)
			after, err := f.store.KeyringUses(t.Context())
			require.NoError(t, err)
			assert.Equal(t, before, after)
		})
	}
}

func destroyFirst(t *testing.T, f *fixture, _ exchange.KeyItem) {
	t.Helper()
	f.dismiss()
	require.NoError(t, f.scheduleDestroy())
	f.clock.Advance(kms.MinDestroyWait)
	require.NoError(t, f.TendKeyrings(t.Context()))
}

// Whoever opens something proves that it is needed, whatever a person said.
func TestUseVoidsADismissal(t *testing.T) {
	for _, operation := range []exchange.KeyOperation{exchange.KeyUnwrap, exchange.KeyRewrap} {
		t.Run(string(operation), func(t *testing.T) {
			f, item := servedKeyring(t)
			f.dismiss()
			f.clock.Advance(time.Hour)
			assert.Empty(t, f.operate(operation, kms.DefaultKeyring, item)[0].Code)
			on := f.outside()
			require.Len(t, on, 1)
			assert.Equal(t, []any{f.clock.Now(), int64(1), int64(1), ""}, []any{on[0].Use.Last, on[0].Use.Wraps, on[0].Use.Unwraps, on[0].Use.DismissedBy})
			var inUse *kms.InUseError
			require.ErrorAs(t, f.scheduleDestroy(), &inUse)
			f.dismiss()
			require.NoError(t, f.scheduleDestroy())
		})
	}
	t.Run("by a machine", func(t *testing.T) {
		f := newFixture(t)
		m := f.running("web-17")
		own := f.use(m, exchange.KeyWrap, exchange.KeyItem{Plaintext: plain("s")})[0].Wrapped
		_, err := f.RotateKeyring(t.Context(), operator(), kms.DefaultKeyring, 0)
		require.NoError(t, err)
		_, err = f.DisableKeyring(t.Context(), operator(), f.version("default@1"))
		require.NoError(t, err)
		f.dismiss()
		assert.Equal(t, "s", text(f.use(m, exchange.KeyUnwrap, exchange.KeyItem{Wrapped: own})[0].Plaintext))
		assert.NotEmpty(t, f.outside())
	})
	t.Run("but nothing that does not open", func(t *testing.T) {
		f, item := servedKeyring(t)
		f.dismiss()
		item.Context = "another"
		assert.Equal(t, string(kms.ReasonCiphertext), f.operate(exchange.KeyUnwrap, kms.DefaultKeyring, item)[0].Code)
		assert.Empty(t, f.outside())
	})
}

// What waits for its destruction opens nothing, and whoever asks for it keeps it
// from being erased.
func TestWhoAsksForAScheduledVersionKeepsIt(t *testing.T) {
	f, item := servedKeyring(t)
	f.dismiss()
	require.NoError(t, f.scheduleDestroy())
	late := f.operate(exchange.KeyUnwrap, kms.DefaultKeyring, item)[0]
	assert.Equal(t, string(kms.ReasonKeyring), late.Code)
	assert.Contains(t, late.Detail, "keywright keyring cancel-destroy")
	assert.Zero(t, late.Plaintext.Len())
	entry := f.lastOf(kms.ActionKeyUnwrap)
	assert.Contains(t, entry.Facts, audit.Fact{Name: "late", Was: "1"})
	assert.NotEmpty(t, f.outside())

	f.clock.Advance(kms.MinDestroyWait)
	require.NoError(t, f.TendKeyrings(t.Context()))
	assert.Equal(t, kms.KeyringDisabled, f.version("default@1").Status)
	assert.Equal(t, audit.Failed, f.lastOf(kms.ActionEraseKeyring).Outcome)
	assert.Equal(t, "s", text(f.operate(exchange.KeyUnwrap, kms.DefaultKeyring, item)[0].Plaintext))

	f.dismiss()
	require.NoError(t, f.scheduleDestroy())
	f.operate(exchange.KeyRewrap, kms.DefaultKeyring, item)
	f.dismiss() // a person decides, also about one that is scheduled
	f.clock.Advance(kms.MinDestroyWait)
	require.NoError(t, f.TendKeyrings(t.Context()))
	assert.Equal(t, kms.KeyringDestroyed, f.version("default@1").Status)
	gone := f.operate(exchange.KeyUnwrap, kms.DefaultKeyring, item)[0]
	assert.Equal(t, string(kms.ReasonKeyring), gone.Code)
	assert.Contains(t, gone.Detail, "is destroyed")
	assert.Empty(t, f.outside(), "nothing keeps what is gone")
}

// The refusal says what to do about each kind that is left.
func TestRefusalToDestroyNamesWhatHelps(t *testing.T) {
	rows := &kms.InUseError{Keyring: "prod", Version: 3, Count: 2}
	both := &kms.InUseError{Keyring: "prod", Version: 3, Count: 2, Outside: true}
	assert.NotContains(t, rows.Error(), "outside")
	assert.Contains(t, both.Error(), rows.Error()+"; ciphertexts outside")
}

// replica is another service over the same store, which has not followed yet what
// this one changes.
func (f *fixture) replica() *fixture {
	f.t.Helper()
	keys, err := kms.OpenKeys(f.t.Context(), f.keysConfig(f.roots()...))
	require.NoError(f.t, err)
	other := &fixture{t: f.t, clock: f.clock, store: f.store, keys: keys, root: f.root, policy: f.policy, trust: f.trust}
	other.Service = other.service()
	return other
}

// A call that begins before a destruction is scheduled, and ends after it, wraps
// nothing that would be lost, and what it opened counts.
func TestCallsUnderWayWhenADestructionIsScheduled(t *testing.T) {
	f := newFixture(t)
	item := exchange.KeyItem{Wrapped: f.operate(exchange.KeyWrap, kms.DefaultKeyring, exchange.KeyItem{Plaintext: plain("s")})[0].Wrapped}
	late := f.replica()
	_, err := f.RotateKeyring(t.Context(), operator(), kms.DefaultKeyring, 0)
	require.NoError(t, err)
	_, err = f.DisableKeyring(t.Context(), operator(), f.version("default@1"))
	require.NoError(t, err)
	f.dismiss()
	require.NoError(t, f.scheduleDestroy())

	call := late.prepareOperate(exchange.KeyWrap, kms.DefaultKeyring, exchange.KeyItem{Plaintext: plain("t")})
	_, err = late.send(call, exchange.KeyWrap, kms.DefaultKeyring)
	require.ErrorIs(t, err, kms.ErrRetired)
	assert.Empty(t, f.outside())
	assert.Equal(t, "s", text(late.operate(exchange.KeyUnwrap, kms.DefaultKeyring, item)[0].Plaintext))
	assert.NotEmpty(t, f.outside())
	f.clock.Advance(kms.MinDestroyWait)
	require.NoError(t, f.TendKeyrings(t.Context()))
	assert.Equal(t, kms.KeyringDisabled, f.version("default@1").Status)
}
