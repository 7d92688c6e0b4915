package sqlite

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// generatedQueries returns the queries of package sqlitedb by name.
func generatedQueries(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("sqlitedb/*.sql.go")
	require.NoError(t, err)
	queries := make(map[string]string)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, found := range regexp.MustCompile("`-- name: (\\w+) :\\w+\n([^`]*)`").FindAllSubmatch(text, -1) {
			queries[string(found[1])] = string(found[2])
		}
	}
	require.NotEmpty(t, queries)
	return queries
}

// plan returns the steps of a query's plan.
func plan(t *testing.T, s *Store, query string) (steps []string) {
	t.Helper()
	parameters := max(strings.Count(query, "?")-len(regexp.MustCompile(`\?[0-9]`).FindAllString(query, -1)),
		len(unique(regexp.MustCompile(`\?[0-9]+`).FindAllString(query, -1))))
	rows, err := s.read.Query("EXPLAIN QUERY PLAN "+query, make([]any, parameters)...)
	require.NoError(t, err, query)
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var step string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &step))
		steps = append(steps, step)
	}
	require.NoError(t, rows.Err())
	return steps
}

func unique(s []string) map[string]bool {
	set := make(map[string]bool)
	for _, x := range s {
		set[x] = true
	}
	return set
}

// However many rows there are, a query goes to its own by an index and reads
// them in the order that it wants.
func TestQueryPlans(t *testing.T) {
	s := openStore(t)
	whole := map[string]bool{ // tables that stay small, and the log's end
		"Counts": true, "KeyringVersions": true, "Wrappers": true, "KeyringUses": true, "ServiceKeys": true, "AllDependents": true, "DropServiceKeysOfKind": true,
		"Head": true, "MoveHead": true, "LatestEntries": true, "RotationRuns": true,
		"MeasurementGroups": true, // of the index of those that are approved
		"CountPins":         true, // for a person who asks
		"VolumesToPlan":     true, // of the orders
	}
	sorted := map[string]bool{ // of one machine, of one group, or few
		"PlatformsOfMachine": true, "ServiceKeys": true, "OldestApproved": true, "CountPins": true,
	}
	queries := generatedQueries(t)
	assert.Contains(t, plan(t, s, queries["LatestEntriesOfMachineAndAction"]), "SEARCH entries USING INDEX entries_machine (machine=?)")
	assert.Contains(t, plan(t, s, queries["ListMachinesByStatusAndGroup"]),
		"SEARCH machines USING INDEX machines_both (in_group=? AND status=? AND id>?)")
	assert.Contains(t, plan(t, s, queries["DependentsOfKeyring"]), "SEARCH dependents USING PRIMARY KEY (keyring=?)")
	assert.Contains(t, plan(t, s, queries["SecretsOfVersion"]),
		"SEARCH secrets USING INDEX secrets_keyring (keyring=? AND keyring_version=? AND (volume,purpose)>(?,?))")
	assert.Subset(t, plan(t, s, queries["VolumesToPlan"]), []string{
		"SEARCH s USING COVERING INDEX secrets_created (created<?)", "SEARCH n USING COVERING INDEX secrets_created (created>?)",
		"SEARCH r USING COVERING INDEX secrets_replaced (replaced<?)",
	})
	for name, query := range queries {
		for _, step := range plan(t, s, query) {
			assert.False(t, strings.HasPrefix(step, "SCAN ") && step != "SCAN CONSTANT ROW" && !whole[name], "%s: %s", name, step)
			assert.False(t, strings.Contains(step, "TEMP B-TREE") && !sorted[name], "%s: %s", name, step)
		}
	}
}
