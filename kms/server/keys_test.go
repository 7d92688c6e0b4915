package server_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

func wrapItems(n, size int) *exchange.KeyRequest {
	r := &exchange.KeyRequest{}
	for i := range n {
		r.Items = append(r.Items, exchange.KeyItem{
			Reference: fmt.Sprint(i), Context: "test", Plaintext: secret.New([]byte(strings.Repeat("s", size))),
		})
	}
	return r
}

// items of what came back, for the next operation.
func itemsOf(results []exchange.KeyResult) *exchange.KeyRequest {
	r := &exchange.KeyRequest{}
	for _, result := range results {
		r.Items = append(r.Items, exchange.KeyItem{Reference: result.Reference, Context: "test", Wrapped: result.Wrapped})
	}
	return r
}

// As much as one call takes goes through every operation in one call each.
func TestWholeBatchThroughTheOperatorListener(t *testing.T) {
	r := newRig(t, nil)
	o := r.operator()
	ask := func(operation exchange.KeyOperation, request *exchange.KeyRequest) []exchange.KeyResult {
		answer, err := o.Keys(t.Context(), operation, "default", request)
		require.NoError(t, err, operation)
		require.Len(t, answer.Results, len(request.Items))
		return answer.Results
	}
	wrapped := ask(exchange.KeyWrap, wrapItems(exchange.MaxKeyItems, exchange.MaxKeyTotal/exchange.MaxKeyItems))
	ask(exchange.KeyRewrap, itemsOf(wrapped))
	for i, result := range ask(exchange.KeyUnwrap, itemsOf(wrapped)) {
		assert.Empty(t, result.Code)
		assert.Equal(t, fmt.Sprint(i), result.Reference)
		assert.Equal(t, exchange.MaxKeyTotal/exchange.MaxKeyItems, result.Plaintext.Len())
	}
	big := ask(exchange.KeyWrap, wrapItems(32, exchange.MaxKeyPlaintext))
	ask(exchange.KeyUnwrap, itemsOf(big))

	mixed := itemsOf(wrapped[:2])
	mixed.Items[1].Context = "other"
	results := ask(exchange.KeyUnwrap, mixed)
	assert.Empty(t, results[0].Code)
	assert.Equal(t, string(api.CodeCiphertext), results[1].Code)

	_, err := o.Keys(t.Context(), exchange.KeyWrap, "none", wrapItems(1, 1))
	refusedWith(t, api.CodeNotFound, err)
	_, err = o.Keys(t.Context(), exchange.KeyWrap, "system", wrapItems(1, 1))
	refusedWith(t, api.CodeState, err)
	_, err = o.Keys(t.Context(), "sign", "default", wrapItems(1, 1))
	require.ErrorContains(t, err, "no operation")
	assert.NotContains(t, r.log.String(), "ssss")
}

// What somebody dismisses is what was recorded when they looked.
func TestOperatorDismissesWhatIsOutside(t *testing.T) {
	r := newRig(t, nil)
	o := r.operator()
	wrapped, err := o.Keys(t.Context(), exchange.KeyWrap, "default", wrapItems(3, 5))
	require.NoError(t, err)
	_, err = o.RotateKeyring(t.Context(), "default", 1)
	require.NoError(t, err)
	_, err = o.DisableKeyring(t.Context(), "default@1")
	require.NoError(t, err)
	k, err := o.Keyring(t.Context(), "default")
	require.NoError(t, err)
	require.NotNil(t, k.Versions[0].Outside)
	assert.Nil(t, k.Versions[1].Outside)
	seen := api.DismissOutside{Reason: "all rewrapped", Uses: k.Versions[0].Outside.Uses()}
	assert.Equal(t, int64(3), seen.Uses)

	_, err = o.Keys(t.Context(), exchange.KeyUnwrap, "default", itemsOf(wrapped.Results[:1]))
	require.NoError(t, err)
	_, err = o.DismissOutside(t.Context(), "default@1", seen)
	refusedWith(t, api.CodeState, err)
	require.ErrorContains(t, err, "somebody used it meanwhile")
	census, err := o.Census(t.Context(), "default@1", api.ListQuery{})
	require.NoError(t, err)
	require.Len(t, census.Blockers, 1)
	seen.Uses = census.Blockers[0].Outside.Uses()
	v, err := o.DismissOutside(t.Context(), "default@1", seen)
	require.NoError(t, err)
	assert.Equal(t, []int64{3, 1}, []int64{v.Outside.Wraps, v.Outside.Unwraps})
	assert.NotNil(t, v.Outside.Dismissed)
	assert.Contains(t, v.Outside.DismissedBy, "operator/uid/")

	_, err = o.DismissOutside(t.Context(), "default@1", api.DismissOutside{})
	refusedWith(t, api.CodeMalformed, err)
	_, err = o.DestroyKeyring(t.Context(), "default@1", api.DestroyKeyring{})
	require.NoError(t, err)
}

func TestMachineUsesKeysThroughTheGuestListener(t *testing.T) {
	r := newRig(t, nil)
	m, guest := r.active("web-17"), r.guest("127.0.0.1")
	_, err := m.UseKeys(t.Context(), guest, exchange.KeyDataKey, "default", exchange.KeyItem{Size: 32})
	refusedWith(t, api.CodeUnreleased, err)
	_, err = m.Unlock(t.Context(), guest)
	require.NoError(t, err)

	request := wrapItems(exchange.MaxKeyItems, exchange.MaxKeyTotal/exchange.MaxKeyItems)
	wrapped, err := m.UseKeys(t.Context(), guest, exchange.KeyWrap, "default", request.Items...)
	require.NoError(t, err)
	opened, err := m.UseKeys(t.Context(), guest, exchange.KeyUnwrap, "default", itemsOf(wrapped).Items...)
	require.NoError(t, err)
	assert.True(t, request.Items[7].Plaintext.Equal(opened[7].Plaintext))

	answer, err := r.operator().Keys(t.Context(), exchange.KeyUnwrap, "default", itemsOf(wrapped[:1]))
	require.NoError(t, err)
	assert.Equal(t, string(api.CodeCiphertext), answer.Results[0].Code, "it is the machine's alone")
	found, err := r.operator().AuditEntries(t.Context(), api.ListQuery{Action: "key.use"})
	require.NoError(t, err)
	require.Len(t, found.Items, 3)
	assert.Equal(t, "machine/"+m.TPM.Machine(), found.Items[0].Actor)

	_, err = r.operator().RevokeMachine(t.Context(), "web-17", "stolen")
	require.NoError(t, err)
	_, err = m.UseKeys(t.Context(), guest, exchange.KeyUnwrap, "default", itemsOf(wrapped[:1]).Items...)
	refusedWith(t, api.CodeRevoked, err)
}

// Calls of the key API wait for each other in a lane of their own, and are bounded
// on both listeners.
func TestAttack19KeyCallsThatCostTooMuch(t *testing.T) {
	r := newRig(t, nil)
	large := `{"challenge":"` + strings.Repeat("A", api.MaxKeyRequest) + `"}`
	for listener, path := range map[string]string{
		"operator": strings.ReplaceAll(api.PathKeyWrap, "{ref}", "default"), "guest": api.PathGuestKeys,
	} {
		response, body := r.send(listener, http.MethodPost, path, large)
		assert.Equal(t, http.StatusRequestEntityTooLarge, response.StatusCode, listener)
		assert.Equal(t, api.CodeTooLarge, codeOf(t, body))
	}
	_, text := r.send("metrics", http.MethodGet, api.PathMetrics, "")
	assert.Contains(t, text, `keywright_guest_lane_in_use{lane="key"} 0`)
}

// An operator whom policy gives wrap alone gets nothing opened.
func TestWrapIsNotUnwrap(t *testing.T) {
	site := filepath.Join(t.TempDir(), "site.cedar")
	require.NoError(t, os.WriteFile(site, []byte(`@id("nobody-unwraps")
forbid (principal, action == Action::"key.unwrap", resource == Keyring::"default");
`), 0o600))
	r := newRig(t, func(c *config.Config) { c.Policy.Files = []string{site} })
	answer, err := r.operator().Keys(t.Context(), exchange.KeyWrap, "default", wrapItems(1, 5))
	require.NoError(t, err)
	_, err = r.operator().Keys(t.Context(), exchange.KeyRewrap, "default", itemsOf(answer.Results))
	require.NoError(t, err)
	_, err = r.operator().Keys(t.Context(), exchange.KeyUnwrap, "default", itemsOf(answer.Results))
	refusedWith(t, api.CodeForbidden, err)
	found, err := r.operator().AuditEntries(t.Context(), api.ListQuery{Action: "key.unwrap"})
	require.NoError(t, err)
	require.Len(t, found.Items, 1)
	assert.Equal(t, "keyring/default", found.Items[0].Object)
}
