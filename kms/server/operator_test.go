package server_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
	"keywright.dev/kms/server"
)

// TestOperatorRoutesAreStrict holds that what a request says twice, or otherwise
// than the API reference, is refused, and that no answer repeats it.
func TestOperatorRoutesAreStrict(t *testing.T) {
	r := newRig(t, nil)
	r.active("web-17")
	const private = "cHJpdmF0ZS1pbnB1dA"
	revoke := concrete(api.PathMachineRevoke)
	for name, request := range map[string][3]string{
		"duplicate member":  {http.MethodPost, revoke, `{"reason":"` + private + `","reason":"` + private + `"}`},
		"letter case":       {http.MethodPost, revoke, `{"Reason":"` + private + `"}`},
		"unknown member":    {http.MethodPost, revoke, `{"` + private + `":"` + private + `"}`},
		"schema member":     {http.MethodPost, revoke, `{"$schema":"` + private + `"}`},
		"another type":      {http.MethodPost, revoke, `{"reason":{"` + private + `":1}}`},
		"trailing value":    {http.MethodPost, revoke, `{"reason":"a"}"` + private + `"`},
		"deep":              {http.MethodPost, revoke, strings.Repeat(`{"reason":`, 100) + `"` + private},
		"null":              {http.MethodPost, revoke, "null"},
		"a list":            {http.MethodPost, revoke, "[]"},
		"no body":           {http.MethodPost, revoke, " "},
		"unknown parameter": {http.MethodGet, api.PathMachines + "?" + private + "=" + private, ""},
		"bad number":        {http.MethodGet, api.PathMachines + "?limit=" + private, ""},
		"out of range":      {http.MethodGet, api.PathMachines + "?limit=100000", ""},
		"bad enum":          {http.MethodGet, api.PathMachines + "?status=" + private, ""},
		"no name":           {http.MethodPost, concrete(api.PathMachineRename), `{"name":"` + private + `"}`},
		"no name to give":   {http.MethodPost, concrete(api.PathMachineApprove), `{"name":"` + private + `"}`},
		"no group":          {http.MethodPost, concrete(api.PathMachineApprove), `{"group":"` + private + `"}`},
		"no digest":         {http.MethodGet, api.PathMeasurements + "/" + private, ""},
		"no base":           {http.MethodPost, api.PathMeasurements, `{"base":"measurement/` + private + `","files":""}`},
		"no claims":         {http.MethodPost, api.PathMeasurements, `{"base":"web-17","files":"` + base64.StdEncoding.EncodeToString([]byte(private)) + `"}`},
		"long reference":    {http.MethodGet, api.PathMachines + "/" + strings.Repeat(private, 100), ""},
	} {
		t.Run(name, func(t *testing.T) {
			response, body := r.send("operator", request[0], request[1], request[2])
			assert.Equal(t, http.StatusBadRequest, response.StatusCode, body)
			assert.Equal(t, "application/json", response.Header.Get("Content-Type"))
			assert.Equal(t, api.CodeMalformed, codeOf(t, body))
			assert.NotContains(t, body, private)
		})
	}
	assert.NotContains(t, r.log.String(), private)
	m, err := r.operator().Machine(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, "active", m.Status, "nothing of it took effect")
}

func TestOperatorErrorsHaveOneForm(t *testing.T) {
	r := newRig(t, nil)
	for name, request := range map[string]struct {
		method, path, body string
		status             int
		code               api.Code
		headers            []string
	}{
		"no path":        {http.MethodGet, "/v1/nothing", "", 404, api.CodeNotFound, nil},
		"no method":      {http.MethodDelete, api.PathMachines, "", 405, api.CodeMethod, nil},
		"wrong method":   {http.MethodGet, concrete(api.PathMachineRevoke), "", 405, api.CodeMethod, nil},
		"no machine":     {http.MethodGet, concrete(api.PathMachine), "", 404, api.CodeNotFound, nil},
		"no measurement": {http.MethodGet, "/v1/measurements/0123456789ab", "", 404, api.CodeNotFound, nil},
		"no volume":      {http.MethodGet, "/v1/volumes/0123456789ab", "", 404, api.CodeNotFound, nil},
		"media type":     {http.MethodPost, concrete(api.PathMachineRevoke), "{}", 415, api.CodeMediaType, []string{"Content-Type", "text/plain"}},
		"too large":      {http.MethodPost, concrete(api.PathMachineRevoke), strings.Repeat(" ", 300<<10) + "{}", 413, api.CodeTooLarge, nil},
	} {
		t.Run(name, func(t *testing.T) {
			response, body := r.send("operator", request.method, request.path, request.body, request.headers...)
			assert.Equal(t, request.status, response.StatusCode, body)
			assert.Equal(t, request.code, codeOf(t, body))
		})
	}
}

// TestPolicyIsAskedForEveryOperatorRoute forbids everything: no route acts, and
// the log has each attempt.
func TestPolicyIsAskedForEveryOperatorRoute(t *testing.T) {
	data := t.TempDir()
	open := openRig(t, data, nil)
	m := open.active("web-17")
	details, err := open.operator().Machine(t.Context(), "web-17")
	require.NoError(t, err)
	open.close()

	deny := filepath.Join(data, "deny.cedar")
	require.NoError(t, os.WriteFile(deny, []byte(`@id("freeze") forbid (principal is Operator, action, resource);`), 0o600))
	r := openRig(t, data, func(c *config.Config) { c.Policy.Files = []string{deny} })
	refs := map[string]string{
		api.PathMeasurement: details.Measurements[0].ID, api.PathMeasurementApprove: details.Measurements[0].ID, api.PathMeasurementDismiss: details.Measurements[0].ID, api.PathMeasurementRetire: details.Measurements[0].ID,
		api.PathVolume: details.Volumes[0].ID, api.PathVolumeRecoveryKey: details.Volumes[0].ID, api.PathVolumeAccept: details.Volumes[0].ID,
		api.PathVolumeHeaderCopy: details.Volumes[0].ID, api.PathVolumeDestroy: details.Volumes[0].ID,
		api.PathVolumeRekey: details.Volumes[0].ID, api.PathVolumeWithdraw: details.Volumes[0].ID,
		api.PathVolumeReencrypt: details.Volumes[0].ID, api.PathVolumeLose: details.Volumes[0].ID,
		api.PathKeyring: "default", api.PathKeyringCensus: "default@1", api.PathKeyringRotate: "default", api.PathKeyringRewrap: "default",
		api.PathKeyringEnable: "default@1", api.PathKeyringDisable: "default@1", api.PathKeyringDestroy: "default@1", api.PathKeyringCancel: "default@1",
		api.PathKeyWrap: "default", api.PathKeyUnwrap: "default", api.PathKeyRewrap: "default", api.PathKeyDataKey: "default", api.PathKeyringDismiss: "default@1",
	}
	const keyCall = `{"challenge":"AAAA","token":"AAAA","statement":"AAAA","request":"AAAA"}`
	bodies := map[string]string{
		api.PathVolumeRecoveryKey: `{"recipient":"AAAA"}`, api.PathVolumeHeaderCopy: `{"recipient":"AAAA"}`, api.PathVolumeDestroy: `{"version":1,"reason":"x"}`,
		api.PathMachineRename: `{"name":"x"}`, api.PathMeasurements: `{"base":"machine/web-17","files":"AAAA"}`, api.PathBackup: `{"path":"/tmp/x"}`,
		api.PathRootsRemove: `{"uri":"file:1"}`, api.PathMachineKeyring: `{"keyring":"default"}`, api.PathKeyrings: `{"name":"prod"}`, api.PathVolumeRekey: `{"reason":"x"}`,
		api.PathVolumeReencrypt: `{"reason":"x"}`, api.PathVolumeLose: `{"reason":"x"}`,
		api.PathCustodyDrills: `{"by":[]}`, api.PathExpectRestore: `{"until":"2026-11-24T18:00:00Z"}`,
		api.PathKeyWrap: keyCall, api.PathKeyUnwrap: keyCall, api.PathKeyRewrap: keyCall, api.PathKeyDataKey: keyCall, api.PathKeyringDismiss: `{"reason":"x"}`,
		api.PathMeasurementRetire: `{"boots":1}`, api.PathIdentityRetire: `{"key":"x"}`,
		api.PathRotationPause: `{"reason":"x"}`, api.PathRotationRuns: `{"why":"x"}`,
		api.PathRotationRunEnd: `{"outcome":"done","done":0,"refused":0,"failed":0,"failures":[]}`,
	}
	tried := 0
	for _, route := range r.service.Server.Routes() {
		if route.Listener != "operator" {
			continue
		}
		path, body := concrete(route.Path), ""
		if ref := refs[route.Path]; ref != "" {
			path = strings.ReplaceAll(route.Path, "{ref}", ref)
		}
		if route.Method == http.MethodPost {
			if body = bodies[route.Path]; body == "" {
				body = "{}"
			}
		}
		response, text := r.send("operator", route.Method, path, body)
		assert.Equal(t, http.StatusForbidden, response.StatusCode, "%s %s: %s", route.Method, path, text)
		tried++
	}
	r.close()

	again := openRig(t, data, nil)
	entries, err := again.operator().AuditEntries(t.Context(), api.ListQuery{Limit: 100})
	require.NoError(t, err)
	denied := 0
	for _, e := range entries.Items {
		if e.Outcome == "refused" && e.Code == "policy" {
			denied++
			assert.Equal(t, []string{"freeze"}, e.Policies)
			assert.Equal(t, fmt.Sprintf("operator/uid/%d", os.Geteuid()), e.Actor)
		}
	}
	assert.Equal(t, tried, denied)
	_, err = m.Unlock(t.Context(), again.guest("127.0.0.1"))
	require.NoError(t, err, "nothing took effect")
}

// TestNothingSecretIsLogged goes through a boot and looks for its key.
func TestNothingSecretIsLogged(t *testing.T) {
	r := newRig(t, nil)
	m := r.active("web-17")
	release, err := m.Unlock(t.Context(), r.guest("127.0.0.1"))
	require.NoError(t, err)
	log := r.log.String()
	assert.Contains(t, log, "boot.release")
	for _, s := range release.Secrets {
		assert.NotContains(t, log, fmt.Sprintf("%x", s.Key.Expose()))
		assert.NotContains(t, log, string(s.Key.Expose()))
	}
	_, metrics := r.send("metrics", http.MethodGet, api.PathMetrics, "")
	assert.Contains(t, metrics, "keywright_releases_total 1\n")
	assert.Contains(t, metrics, `keywright_machines{status="active"} 1`)
	assert.NotContains(t, metrics, m.TPM.Machine())
	assert.NotContains(t, metrics, "web-17")

	ref := m.Volumes[0].ID
	key, err := r.operator().RecoveryKey(t.Context(), "volume/"+ref, 0)
	require.NoError(t, err)
	defer key.Wipe()
	volume, err := r.operator().Volume(t.Context(), ref)
	require.NoError(t, err)
	require.Len(t, volume.Secrets, 2)
	assert.NotNil(t, volume.Secrets[1].Disclosed)
	entries, err := r.operator().AuditEntries(t.Context(), api.ListQuery{Action: "volume.recovery_key"})
	require.NoError(t, err)
	require.Len(t, entries.Items, 1)
	assert.NotContains(t, fmt.Sprint(entries), string(key.Expose()))
	r.close()
	log = r.log.String()
	assert.Contains(t, log, "volume.recovery_key")
	assert.NotContains(t, log, string(key.Expose()))
}

// TestApprovalIsAllowedForTheGroupThatTheMachineGoesTo moves machines into a
// group that the operator may approve nothing for.
func TestApprovalIsAllowedForTheGroupThatTheMachineGoesTo(t *testing.T) {
	site := filepath.Join(t.TempDir(), "site.cedar")
	require.NoError(t, os.WriteFile(site, []byte(`@id("production-is-ours")
forbid (principal, action == Action::"machine.approve", resource in Group::"production");
`), 0o600))
	r := newRig(t, func(c *config.Config) { c.Policy.Files = []string{site} })
	m := r.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), r.guest("127.0.0.1")))
	approve := func(group string) error {
		_, err := r.operator().ApproveMachine(t.Context(), "web-17", api.ApproveMachine{EKHash: m.TPM.Machine(), Group: group})
		return err
	}
	refusedWith(t, api.CodeForbidden, approve("production"))
	found, err := r.operator().AuditEntries(t.Context(), api.ListQuery{Action: "machine.approve"})
	require.NoError(t, err)
	require.Len(t, found.Items, 1)
	assert.Equal(t, []string{"production-is-ours"}, found.Items[0].Policies)
	require.NoError(t, approve("web"))
	refusedWith(t, api.CodeForbidden, approve("production"))
	shown, err := r.operator().Machine(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, "web", shown.Group)
}

// TestRefusalThatCannotBeRecordedIsTold has a stranger refused over a store that
// takes nothing any more: that is the service's failure, and in its log.
func TestRefusalThatCannotBeRecordedIsTold(t *testing.T) {
	r := newRig(t, nil)
	r.close()
	recorder := httptest.NewRecorder()
	r.service.Server.ServeOperator(recorder, httptest.NewRequest(http.MethodGet, api.PathStatus, nil), server.Peer{UID: 65534})
	assert.Equal(t, http.StatusServiceUnavailable, recorder.Code)
	assert.Contains(t, r.log.String(), "recording operator.connect")
}
