package attest_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEveryCodeIsDocumented(t *testing.T) {
	assert.ElementsMatch(t,
		found(t, "error.go", `Code = "([a-z_]+)"`),
		found(t, "../../docs/attestation.md", "(?m)^\\| `((?:quote|pcr|log|ek)_[a-z_]+)` \\|"))
}

// found returns the first group of each match in a file.
func found(t *testing.T, path, pattern string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var list []string
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		list = append(list, match[1])
	}
	require.NotEmpty(t, list)
	return list
}
