package server_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/server"
	"keywright.dev/test/golden"
)

var update = flag.Bool("update", false, "write the pages of docs/reference")

func reference(name string) string {
	return filepath.Join("..", "..", "docs", "reference", name)
}

func TestOpenAPIIsCurrent(t *testing.T) {
	r := newRig(t, nil)
	description, err := r.service.Server.OpenAPI()
	require.NoError(t, err)
	golden.Check(t, reference("openapi.json"), string(description), *update)

	var parsed struct {
		OpenAPI string                               `json:"openapi"`
		Paths   map[string]map[string]map[string]any `json:"paths"`
	}
	require.NoError(t, json.Unmarshal(description, &parsed))
	assert.Equal(t, "3.1.0", parsed.OpenAPI)
	for _, route := range r.service.Server.Routes() {
		if route.Listener == server.MetricsListener {
			continue
		}
		operation := parsed.Paths[route.Path][strings.ToLower(route.Method)]
		require.NotNil(t, operation, "%s %s is not described", route.Method, route.Path)
		assert.Equal(t, route.Action, operation["x-keywright-action"])
		assert.NotEmpty(t, operation["summary"])
	}
	assert.NotContains(t, string(description), "ErrorModel", "huma's own form of errors")
}

func TestErrorReferenceIsCurrent(t *testing.T) {
	var page strings.Builder
	page.WriteString("# Error codes\n\nEvery answer that is not a success has this body; consoles show the number as KW-1203.\n\n" +
		"```json\n{\"code\":\"measurement\",\"number\":1203,\"message\":\"…\",\"request\":\"…\",\"retry_after\":0}\n```\n\n" +
		"A code keeps its number and its meaning. `request` finds the request in the service's log and in the audit log. " +
		"Where `retry_after` is absent, a retry without a change is in vain.\n\n" +
		"| number | code | HTTP | what it says |\n|---|---|---|---|\n")
	meanings := make(map[api.Code]server.Meaning)
	for _, m := range server.Meanings() {
		meanings[m.Code] = m
	}
	for _, code := range api.Codes() {
		m := meanings[code]
		fmt.Fprintf(&page, "| KW-%d | `%s` | %d | %s |\n", code.Number(), code, m.Status, m.Text)
	}
	golden.Check(t, reference("errors.md"), page.String(), *update)
}

func TestMetricsReferenceIsCurrent(t *testing.T) {
	r := newRig(t, nil)
	m := r.machine("web-17")
	_, err := m.Unlock(t.Context(), r.guest("127.0.0.1"))
	refusedWith(t, api.CodeMachine, err)
	r.active("web-18")
	families, err := r.service.Server.Metrics.Gatherer().Gather()
	require.NoError(t, err)
	var page strings.Builder
	page.WriteString("# Metrics\n\nThe metrics listener shows them at `/metrics` in Prometheus' text format, " +
		"beside those of the Go runtime (`go_…`) and of the process (`process_…`). None names a machine.\n\n" +
		"| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "keywright_") {
			continue
		}
		var labels []string
		for _, label := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+label.GetName()+"`")
		}
		fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n",
			family.GetName(), strings.ToLower(family.GetType().String()), strings.Join(labels, ", "), family.GetHelp())
	}
	golden.Check(t, reference("metrics.md"), page.String(), *update)
}
