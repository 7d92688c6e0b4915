package kms_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

func keyChallenge(c kms.KeyChallenge, err error) (api.KeyChallenge, error) {
	plain, err := challenge(c.Challenge, err)
	out := api.KeyChallenge{
		Challenge: plain.Challenge, Token: plain.Token, Expires: plain.Expires, Selection: plain.Selection, Recipient: c.Recipient,
	}
	for _, s := range c.Signed {
		out.Signed = append(out.Signed, api.KeySignature(s))
	}
	return out, err
}

func (d *direct) KeyChallenge(context.Context) (api.KeyChallenge, error) {
	return keyChallenge(d.service.IssueKeyChallenge())
}

func (d *direct) Keys(ctx context.Context, r api.KeyRequest) (api.KeyAnswer, error) {
	s, err := d.service.UseKeys(ctx, attested(r.Attested), r.Request)
	return api.KeyAnswer{Sealed: sealed(s)}, err
}

func (f *fixture) use(m *sim.Machine, operation exchange.KeyOperation, items ...exchange.KeyItem) []exchange.KeyResult {
	f.t.Helper()
	results, err := m.UseKeys(f.t.Context(), f.guest(), operation, kms.DefaultKeyring, items...)
	require.NoError(f.t, err)
	require.Len(f.t, results, len(items))
	return results
}

// operatorCall is an operator's call that a test may falsify.
type operatorCall struct {
	*exchange.KeyCall
	sent    kms.KeyCall
	request *exchange.KeyRequest
}

func (f *fixture) prepareOperate(operation exchange.KeyOperation, keyring string, items ...exchange.KeyItem) *operatorCall {
	f.t.Helper()
	c, err := keyChallenge(f.IssueKeyChallenge())
	require.NoError(f.t, err)
	request := &exchange.KeyRequest{Items: items}
	call, err := api.OpenKeyCall([][32]byte{f.ServiceKey()}, c, operation, keyring, request)
	require.NoError(f.t, err)
	call.Statement.ServiceKey = f.ServiceKey()
	return &operatorCall{call, kms.KeyCall{Challenge: c.Challenge, Token: c.Token, Request: call.Sealed}, request}
}

func (f *fixture) send(c *operatorCall, operation exchange.KeyOperation, keyring string) ([]exchange.KeyResult, error) {
	f.t.Helper()
	statement, err := c.Statement.Marshal()
	require.NoError(f.t, err)
	c.sent.Statement = statement
	s, err := f.OperateKeys(f.t.Context(), operator(), operation, keyring, c.sent)
	if err != nil {
		return nil, err
	}
	answer, err := api.CloseKeyCall([][32]byte{f.ServiceKey()}, c.KeyCall, statement, api.KeyAnswer{Sealed: sealed(s)}, c.request)
	require.NoError(f.t, err)
	return answer.Results, nil
}

func (f *fixture) operate(operation exchange.KeyOperation, keyring string, items ...exchange.KeyItem) []exchange.KeyResult {
	f.t.Helper()
	results, err := f.send(f.prepareOperate(operation, keyring, items...), operation, keyring)
	require.NoError(f.t, err)
	require.Len(f.t, results, len(items))
	return results
}

func plain(text string) secret.Bytes { return secret.Copy([]byte(text)) }

func text(s secret.Bytes) string { return string(s.Expose()) }

func facts(e audit.Entry) map[string]string {
	found := make(map[string]string)
	for _, f := range e.Facts {
		found[f.Name] = f.Is
	}
	return found
}

func TestMachineWrapsForItself(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	wrapped := f.use(m, exchange.KeyWrap,
		exchange.KeyItem{Reference: "db", Context: "postgres", Plaintext: plain("hunter2")},
		exchange.KeyItem{Reference: "tls", Plaintext: plain("a private key")},
	)
	assert.True(t, strings.HasPrefix(wrapped[0].Wrapped, "kw1.default.1."))
	assert.Equal(t, []string{"db", "tls"}, []string{wrapped[0].Reference, wrapped[1].Reference})

	opened := f.use(m, exchange.KeyUnwrap,
		exchange.KeyItem{Reference: "2", Wrapped: wrapped[1].Wrapped},
		exchange.KeyItem{Reference: "1", Context: "postgres", Wrapped: wrapped[0].Wrapped},
	)
	assert.Equal(t, "a private key", text(opened[0].Plaintext))
	assert.Equal(t, "hunter2", text(opened[1].Plaintext))

	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, kms.ActionKeyUse, entry.Action)
	assert.Equal(t, audit.Allowed, entry.Outcome)
	assert.Equal(t, []string{"use-default-keyring-in-approved-boot"}, entry.Policies)
	got := facts(entry)
	h := sha256.Sum256([]byte("\x00\x00\x00\x012\x00\x00\x00\x011"))
	assert.Equal(t, hex.EncodeToString(h[:]), got["references"])
	delete(got, "references")
	assert.Equal(t, map[string]string{
		"operation": "unwrap", "keyring": "default", "purpose": "application", "items": "2", "failed": "0", "versions": "",
	}, got)
	assert.NotContains(t, fmt.Sprint(entry), "hunter2")

	m.Boot()
	f.unlock(m)
	again := f.use(m, exchange.KeyUnwrap, exchange.KeyItem{Context: "postgres", Wrapped: wrapped[0].Wrapped})
	assert.Equal(t, "hunter2", text(again[0].Plaintext), "the next boot opens it too")
}

func TestDataKeys(t *testing.T) {
	f := newFixture(t)
	made := f.operate(exchange.KeyDataKey, kms.DefaultKeyring,
		exchange.KeyItem{Size: 16}, exchange.KeyItem{Size: 32}, exchange.KeyItem{Size: 64}, exchange.KeyItem{Size: 33})
	for i, size := range []int{16, 32, 64} {
		require.Equal(t, size, made[i].Plaintext.Len())
		opened := f.operate(exchange.KeyUnwrap, kms.DefaultKeyring, exchange.KeyItem{Wrapped: made[i].Wrapped})
		assert.True(t, made[i].Plaintext.Equal(opened[0].Plaintext))
	}
	assert.Equal(t, string(kms.ReasonMalformed), made[3].Code)
	assert.Zero(t, made[3].Plaintext.Len())
}

// What is wrong with one item is told of it alone.
func TestItemsFailByThemselves(t *testing.T) {
	f := newFixture(t)
	good := f.operate(exchange.KeyWrap, kms.DefaultKeyring, exchange.KeyItem{Plaintext: plain("one")})[0].Wrapped
	altered := []byte(good)
	if at := &altered[len(altered)-5]; *at == 'A' {
		*at = 'B'
	} else {
		*at = 'A'
	}
	items := []exchange.KeyItem{
		{Reference: "good", Wrapped: good},
		{Reference: "empty"},
		{Reference: "no form", Wrapped: "vault:v1:AAAA"},
		{Reference: "altered", Wrapped: string(altered)},
		{Reference: "no such version", Wrapped: strings.Replace(good, ".1.", ".7.", 1)},
		{Reference: "another keyring's, of no version here", Wrapped: strings.Replace(good, "default.1.", "prod.7.", 1)},
		{Reference: "both", Wrapped: good, Plaintext: plain("x")},
		{Reference: "good too", Wrapped: good},
	}
	want := []string{"", "malformed", "malformed", "ciphertext", "keyring", "ciphertext", "malformed", ""}
	for _, operation := range []exchange.KeyOperation{exchange.KeyUnwrap, exchange.KeyRewrap} {
		results := f.operate(operation, kms.DefaultKeyring, items...)
		for i, r := range results {
			assert.Equal(t, items[i].Reference, r.Reference)
			assert.Equal(t, want[i], r.Code, r.Reference)
			assert.Equal(t, want[i] == "", r.Plaintext.Len() > 0 || r.Wrapped != "", r.Reference)
			assert.NotContains(t, r.Detail, "AAAA")
		}
	}
	entries, err := f.store.LatestEntries(t.Context(), "", kms.ActionKeyRewrap, 1)
	require.NoError(t, err)
	entry, err := f.Log.Verifier().Verify(entries[0].Signed)
	require.NoError(t, err)
	assert.Equal(t, "6", facts(entry)["failed"])
	assert.Equal(t, "keyring/default", entry.Object)
	assert.Equal(t, audit.ActorOperator, entry.Actor.Kind)
}

func TestRewrapMovesToTheCurrentVersion(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	item := exchange.KeyItem{Context: "c", Plaintext: plain("s")}
	theirs, own := f.operate(exchange.KeyWrap, kms.DefaultKeyring, item)[0].Wrapped, f.use(m, exchange.KeyWrap, item)[0].Wrapped
	uses, err := f.store.KeyringUses(t.Context())
	require.NoError(t, err)
	now := f.clock.Now()
	assert.Equal(t, []kms.KeyringUse{{Keyring: "default", Version: 1, First: now, Last: now, Wraps: 2}}, uses)

	_, err = f.RotateKeyring(t.Context(), operator(), kms.DefaultKeyring, 0)
	require.NoError(t, err)
	moved := f.operate(exchange.KeyRewrap, kms.DefaultKeyring, exchange.KeyItem{Context: "c", Wrapped: theirs})[0]
	assert.True(t, strings.HasPrefix(moved.Wrapped, "kw1.default.2."), moved.Detail)
	assert.Zero(t, moved.Plaintext.Len())
	again := f.operate(exchange.KeyRewrap, kms.DefaultKeyring, exchange.KeyItem{Context: "c", Wrapped: moved.Wrapped})[0]
	assert.Equal(t, moved.Wrapped, again.Wrapped, "what is there already stays")
	opened := f.operate(exchange.KeyUnwrap, kms.DefaultKeyring, exchange.KeyItem{Context: "c", Wrapped: moved.Wrapped})[0]
	assert.Equal(t, "s", text(opened.Plaintext))

	movedOwn := f.use(m, exchange.KeyRewrap, exchange.KeyItem{Context: "c", Wrapped: own})[0]
	assert.True(t, strings.HasPrefix(movedOwn.Wrapped, "kw1.default.2."), movedOwn.Detail)
	assert.Equal(t, "s", text(f.use(m, exchange.KeyUnwrap, exchange.KeyItem{Context: "c", Wrapped: movedOwn.Wrapped})[0].Plaintext))
	uses, err = f.store.KeyringUses(t.Context())
	require.NoError(t, err)
	require.Len(t, uses, 2)
	assert.Equal(t, []int64{2, 2}, []int64{uses[0].Wraps, uses[0].Unwraps})
	assert.Equal(t, []int64{2, 3}, []int64{uses[1].Wraps, uses[1].Unwraps}, "what is there already was opened, too")
}

// What applications ask for uses up nothing that a boot needs.
func TestBootsHaveARateOfTheirOwn(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	var err error
	calls := 0
	for ; err == nil && calls < 100; calls++ {
		_, err = m.UseKeys(t.Context(), f.guest(), exchange.KeyDataKey, kms.DefaultKeyring, exchange.KeyItem{Size: 32})
	}
	refused(t, kms.ReasonRate, err)
	assert.Less(t, calls, 100)
	f.unlock(m)
}

// However often applications ask, what became of the last boot is what a machine
// is explained by.
func TestExplainLooksPastTheUseOfKeys(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	use := func(times int) error {
		var err error
		for range times {
			f.clock.Advance(2 * time.Second)
			_, err = m.UseKeys(t.Context(), f.guest(), exchange.KeyDataKey, kms.DefaultKeyring, exchange.KeyItem{Size: 32})
		}
		return err
	}
	for _, times := range []int{1, 40} {
		require.NoError(t, use(times))
		x, err := f.Explain(t.Context(), "web-17")
		require.NoError(t, err)
		require.NotNil(t, x.Last)
		assert.Equal(t, kms.ActionRelease, x.Last.Action)
	}
	m.Log = recordedBoot(t, "grub-a")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	refused(t, kms.ReasonUnreleased, use(40))
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, kms.ActionRelease, x.Last.Action)
	assert.Equal(t, string(kms.ReasonMeasurement), x.Last.Code)
}
