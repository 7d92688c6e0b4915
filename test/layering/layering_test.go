package layering

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

var update = flag.Bool("update", false, "write the depguard rules into .golangci.yml")

func TestImportGraph(t *testing.T) {
	readTree(t)
	g, err := Load(t.Context(), root)
	require.NoError(t, err)
	require.Contains(t, g, Module+"/kms/secret", "the graph is not that of this module")
	for _, v := range Check(g) {
		t.Error(v)
	}
}

// readTree stats every Go file of the module. The go tool caches a test's result
// by the files that the test itself has opened, and what go list reads it does
// not see: without this a new import could hide behind a cached "ok".
func readTree(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root:
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go") || entry.Name() == "go.mod":
			_, err = os.Stat(path)
		}
		return err
	})
	require.NoError(t, err)
}

func TestDepguardRulesAreThoseOfTheTable(t *testing.T) {
	const begin, end = "        # begin: rendered from test/layering\n", "        # end: rendered from test/layering\n"
	path := filepath.Join(root, ".golangci.yml")
	config, err := os.ReadFile(path)
	require.NoError(t, err)

	before, rest, found := strings.Cut(string(config), begin)
	require.True(t, found, "%s has no line %q", path, begin)
	rules, after, found := strings.Cut(rest, end)
	require.True(t, found, "%s has no line %q", path, end)

	if *update {
		require.NoError(t, os.WriteFile(path, []byte(before+begin+Depguard()+end+after), 0o644))
		return
	}
	assert.Equal(t, Depguard(), rules, "run `go test ./test/layering -update` to write the rules anew")
}
