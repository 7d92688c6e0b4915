// Package docs_test holds the documentation against the tree: links lead
// somewhere, SECURITY.md names exactly the attack tests that exist, each code that
// a console can show has its entry, and the guides type commands that exist.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const top = "../.."

// files returns the files of the tree with an ending, relative to its top.
func files(t *testing.T, ending string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "bin") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ending) {
			found = append(found, path)
		}
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, found)
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	for _, page := range files(t, ".md") {
		for _, match := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(page), match[1]))
			assert.NoError(t, err, "link in %s", page)
		}
	}
}

// attackTests returns the names of attack tests by the number of their row.
func attackTests(t *testing.T) map[string][]string {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func (TestAttack(\d\d)\w*)\(`)
	both := regexp.MustCompile(`^TestAttack\d\dAnd(\d\d)`)
	tests := make(map[string][]string)
	add := func(row, name string) {
		if !slices.Contains(tests[row], name) {
			tests[row] = append(tests[row], name)
		}
	}
	for _, file := range files(t, "_test.go") {
		for _, match := range declared.FindAllStringSubmatch(read(t, file), -1) {
			add(match[2], match[1])
			if second := both.FindStringSubmatch(match[1]); second != nil {
				add(second[1], match[1])
			}
		}
	}
	return tests
}

func TestSecurityPageNamesTheAttackTests(t *testing.T) {
	row := regexp.MustCompile(`(?m)^\| (\d+) \|.*$`)
	name := regexp.MustCompile(`TestAttack\w+`)
	page := make(map[string][]string)
	for _, match := range row.FindAllStringSubmatch(read(t, filepath.Join(top, "SECURITY.md")), -1) {
		number := strings.Repeat("0", 2-len(match[1])) + match[1]
		page[number] = name.FindAllString(match[0], -1)
	}
	tests := attackTests(t)
	for number, names := range tests {
		assert.ElementsMatch(t, names, page[number], "row %s of SECURITY.md", number)
	}
	for number := range page {
		assert.Contains(t, tests, number, "row %s of SECURITY.md has no test", number)
	}
}
