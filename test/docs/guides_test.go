package docs_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// guides returns the pages that walk a person through something.
func guides() []string { return []string{"first-vm.md", "update-night.md", "restoring-a-vm.md"} }

func TestGuidesAreThere(t *testing.T) {
	index := read(t, filepath.Join(top, "README.md"))
	for _, name := range guides() {
		assert.NotEmpty(t, read(t, filepath.Join(top, "docs", "guides", name)))
		if !strings.Contains(index, "docs/guides/"+name) {
			t.Errorf("README.md does not name docs/guides/%s", name)
		}
	}
}

// codes returns the headings that the codes in the sources want, as in
// "KW-1203 measurement".
func codes(t *testing.T) []string {
	t.Helper()
	named := regexp.MustCompile(`(?m)^\t(Code\w+)\s+(?:Code|api\.Code)\s*= "(\w+)"$`)
	numbered := regexp.MustCompile(`(?:\{(Code\w+), (\d{4})\}|case (Code\w+):\s+return (\d{4}))`)
	var found []string
	for _, source := range []string{"kms/api/codes.go", "unlock/failure.go"} {
		text := read(t, filepath.Join(top, source))
		names := make(map[string]string)
		for _, match := range named.FindAllStringSubmatch(text, -1) {
			names[match[1]] = match[2]
		}
		count := 0
		for _, match := range numbered.FindAllStringSubmatch(text, -1) {
			name := names[match[1]+match[3]]
			require.NotEmpty(t, name, "%s in %s", match[0], source)
			found = append(found, "KW-"+match[2]+match[4]+" "+name)
			count++
		}
		require.Len(t, names, count, "every code of %s has a number", source)
	}
	return found
}

func TestEveryCodeHasItsEntry(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^#+ (KW-.*)$`)
	var entries []string
	for _, match := range heading.FindAllStringSubmatch(read(t, filepath.Join(top, "docs", "troubleshooting.md")), -1) {
		entries = append(entries, match[1])
	}
	assert.ElementsMatch(t, codes(t), entries)
}

// verbs returns the command lines that exist and what the reference says of each;
// of the guest's program, which has no such page, its sources.
func verbs(t *testing.T) map[string]string {
	t.Helper()
	known := make(map[string]string)
	for section := range strings.SplitSeq(read(t, filepath.Join(top, "docs", "reference", "cli.md")), "\n## ") {
		name, text, _ := strings.Cut(section, "\n")
		known[name] = text
	}
	for name := range known { // with what the verbs above it have for all below
		for above := name; strings.Contains(above, " "); {
			above = above[:strings.LastIndex(above, " ")]
			known[name] += known[above]
		}
	}
	verb := regexp.MustCompile(`(?m)^\t\t\{"([a-z]+)", `)
	set := regexp.MustCompile(`set\.(?:\w+)\((?:&[\w.]+, )?"([a-z-]+)"`)
	var flags strings.Builder
	for _, file := range files(t, ".go") {
		if strings.Contains(file, "cmd/keywright-unlock/") {
			for _, match := range set.FindAllStringSubmatch(read(t, file), -1) {
				flags.WriteString("--" + match[1] + " ")
			}
		}
	}
	for _, match := range verb.FindAllStringSubmatch(read(t, filepath.Join(top, "cmd", "keywright-unlock", "main.go")), -1) {
		known["keywright-unlock "+match[1]] = flags.String()
	}
	return known
}

func TestGuidesTypeWhatExists(t *testing.T) {
	known := verbs(t)
	code := regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
	typed := regexp.MustCompile(`(?m)(?:^|[\s` + "`" + `])(keywright(?:-unlock)?)((?: [a-z][a-z-]*)+)([^\n` + "`" + `]*(?:\\\n[^\n` + "`" + `]*)*)`)
	flag := regexp.MustCompile(`--[a-z-]+`)
	pages := []string{"troubleshooting.md", "operations.md"}
	for _, name := range guides() {
		pages = append(pages, filepath.Join("guides", name))
	}
	for _, page := range pages {
		for _, block := range code.FindAllString(read(t, filepath.Join(top, "docs", page)), -1) {
			for _, match := range typed.FindAllStringSubmatch(block, -1) {
				about, ok := longest(known, match[1]+match[2])
				if !assert.True(t, ok, "%s types %q, which is no command", page, match[1]+match[2]) {
					continue
				}
				for _, name := range flag.FindAllString(match[3], -1) {
					if !strings.Contains(about, name) {
						t.Errorf("%s types %s, which has no %s", page, strings.TrimSpace(match[0]), name)
					}
				}
			}
		}
	}
}

// longest returns what is known of the longest command that a line begins with.
func longest(known map[string]string, line string) (about string, ok bool) {
	for words := strings.Fields(line); len(words) > 1; words = words[:len(words)-1] {
		if about, ok := known[strings.Join(words, " ")]; ok {
			return about, true
		}
	}
	return "", false
}
