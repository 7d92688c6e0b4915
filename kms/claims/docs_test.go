package claims_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
)

func TestEveryNameIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/claims.md")
	require.NoError(t, err)
	source, err := os.ReadFile("names.go")
	require.NoError(t, err)
	names := regexp.MustCompile(`(?m)^\t[A-Z]\w+ += "([^"]+[^".])"$`).FindAllStringSubmatch(string(source), -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		assert.Contains(t, string(page), "`"+name[1]+"`")
	}
	for _, section := range claims.UKISections() {
		assert.Contains(t, string(page), "`"+claims.UKIPrefix+section+"`")
	}
}
