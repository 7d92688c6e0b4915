// Package golden compares what a program generates with the file that is
// committed for it, such as a reference page.
package golden

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Check holds that the file at path is generated; with update it writes it.
// Test packages pass a flag of their own: go test ./their/package -update.
func Check(t *testing.T, path, generated string, update bool) {
	t.Helper()
	if update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(generated), 0o644))
		return
	}
	committed, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(committed), generated, "%s is not what is generated: run this test with -update and commit the file", path)
}
