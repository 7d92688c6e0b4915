package policy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/policy"
)

func TestWrongPoliciesAreRefusedWithFileAndLine(t *testing.T) {
	const head = "// a comment\n@id(\"a\")\n"
	for text, want := range map[string]string{
		`permit (principal, action, resource);`:                                                                        `site.cedar:1: the policy needs an id: @id("…")`,
		`@id("A b") permit (principal, action, resource);`:                                                             `site.cedar:1: the policy needs an id`,
		head + `permit (principal, action, resource)`:                                                                  `parse error at site.cedar:3:37`,
		head + `permit (principal, action == Action::"boot.relase", resource);`:                                        "site.cedar:2: policy a: unrecognized action `Action::\"boot.relase\"`",
		head + `permit (principal is Machin, action, resource);`:                                                       "site.cedar:2: policy a: unrecognized entity type",
		head + `permit (principal is Machine, action, resource) when { principal.nam == "x" };`:                        "site.cedar:2: policy a: attribute `nam` on entity type `Machine` not found",
		head + `permit (principal is Machine, action, resource) when { principal.name };`:                              "site.cedar:2: policy a: unexpected type: expected Bool but saw String",
		head + `permit (principal is Operator, action, resource) when { context.source.isLoopback() };`:                "optional attribute `source`",
		head + `permit (principal is Machine, action, resource) when { context.evidence.getTag("a") == ["b"] };`:       "unable to guarantee safety of access to tag",
		head + `permit (principal in Role::"admn", action, resource);`:                                                 `site.cedar:2: policy a: there is no Role::"admn"`,
		head + `permit (principal is Operator in Role::"admn", action, resource);`:                                     `there is no Role::"admn"`,
		head + `permit (principal, action, resource == Log::"x");`:                                                     `there is no Log::"x"`,
		head + `permit (principal is Operator, action, resource) when { principal in [Role::"admin", Role::"admn"] };`: `there is no Role::"admn"`,
		head + `permit (principal == ?principal, action, resource);`:                                                   `parse error at site.cedar:3`,
		head + `permit (principal, action, resource);` + "\n\n" + head + `forbid (principal, action, resource);`:       "site.cedar:6: policy a: the id is taken by the one at site.cedar:2",
		`@id("a") permit (principal, action, resource) when { ` + strings.Repeat("(", 100):                             "site.cedar:1: brackets nest deeper than 64",
		head + `permit (principal, action, resource) when { true` + strings.Repeat("\n&& true", 2000):                  "the policy is longer than 8192 bytes",
		head + `permit (principal, action, resource) when { principal has ` + strings.Repeat("a /**/.\n", 40):          "parse error",
		head + `permit (principal, action, resource) when { principal has ` + strings.Repeat("a // .;\n.", 40):         "site.cedar:36: a path has more than 32 dots",
		strings.Repeat(" ", policy.MaxText+1):                                                                          "site.cedar: more than 262144 bytes",
		"":                                                                                                             "no policy in any file: nothing would be permitted",
		"\xff":                                                                                                         "site.cedar",
	} {
		_, err := policy.New(policy.Document{Name: "site.cedar", Text: []byte(text)})
		require.ErrorContains(t, err, want)
		assert.True(t, strings.HasPrefix(err.Error(), "loading policies: "), err)
	}
}

func TestAllErrorsAreReportedUpToALimit(t *testing.T) {
	var text strings.Builder
	for i := range 30 {
		fmt.Fprintf(&text, "@id(\"p%d\") permit (principal is Nobody, action, resource);\n", i)
	}
	_, err := policy.New(policy.Document{Name: "a.cedar", Text: []byte(text.String())},
		policy.Document{Name: "b.cedar", Text: []byte("nonsense")})
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	assert.Len(t, lines, 21)
	assert.Contains(t, lines[0], "a.cedar:1: policy p0: ")
	assert.Contains(t, lines[19], "a.cedar:20: policy p19: ")
	assert.Equal(t, "and 11 more", lines[20])
}

func TestBracketsInStringsAndCommentsDoNotNest(t *testing.T) {
	deep := strings.Repeat("(", 100)
	only(t, `@id("a") permit (principal is Machine, action, resource) // `+deep+`
	when { principal.name != "\"`+deep+`" };`)
	hidden := "// " + strings.Repeat(")", 100) + "\n"
	_, err := policy.New(policy.Document{Name: "a.cedar", Text: []byte(
		`@id("a") permit (principal, action, resource) when { ` + deep[:60] + hidden + deep[:60])})
	require.ErrorContains(t, err, "brackets nest deeper")
}

func TestCommentsDoNotMakeAPolicyLong(t *testing.T) {
	comment := "// " + strings.Repeat("a", 5000) + "\n"
	only(t, `@id("a") permit (principal, action, resource) `+comment+comment+`;
	@id("b") permit (principal is Machine, action, resource) when { principal.name != "`+strings.Repeat("a", 8000)+`" };`)
}

// TestWorstPoliciesLoadInTime: each repeats as often as fits what cedar-go
// recurses on, some of it in quadratic time.
func TestWorstPoliciesLoadInTime(t *testing.T) {
	path := strings.TrimSuffix(strings.Repeat("a.", 32), ".")
	for _, part := range []string{
		"!", "-", "true && ", "true || ", "1 + ", "if true then ", "if true then true else ", "principal.", "a .\t",
		"principal.name == \"a\" || ", "principal has " + path + " && ", "principal." + path + " == 1 && ", "[", "{a: ", "ip(",
	} {
		head := `@id("a") permit (principal is Machine, action, resource) when { `
		text := head + strings.Repeat(part, (policy.MaxPolicy-len(head)-10)/len(part))
		for _, end := range []string{"true };", "a };", ""} {
			began := time.Now()
			_, _ = policy.New(policy.Document{Name: "a.cedar", Text: []byte(text + end)})
			assert.Less(t, time.Since(began), 5*time.Second, part)
		}
	}
}

func TestShippedDocumentsLoad(t *testing.T) {
	documents, err := policy.Shipped()
	require.NoError(t, err)
	var names []string
	for _, d := range documents {
		names = append(names, d.Name)
	}
	assert.Equal(t, []string{"keys.cedar", "operators.cedar", "release.cedar", "volumes.cedar"}, names)
	_, err = policy.New(documents...)
	require.NoError(t, err)
}

// FuzzNew: whatever loads decides without a panic, and never allows where no
// permit stands in the text.
func FuzzNew(f *testing.F) {
	documents, err := policy.Shipped()
	require.NoError(f, err)
	for _, d := range documents {
		f.Add(d.Text)
	}
	boot := goodBoot(f)
	admin := policy.Operator{ID: "uid/0", Roles: []policy.Role{policy.RoleAdmin}}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := policy.New(policy.Document{Name: "a.cedar", Text: text})
		if err != nil {
			assert.Nil(t, e)
			return
		}
		allowed := e.Release(web17, root, boot).Allowed ||
			e.Operate(admin, "machine.approve", web17, now()).Allowed
		if allowed {
			assert.Contains(t, string(text), "permit")
		}
	})
}

// TestDocumentedPoliciesLoad holds docs/policy.md to the schema.
func TestDocumentedPoliciesLoad(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	require.NoError(t, err)
	blocks := strings.Split(string(page), "```cedar\n")[1:]
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		only(t, text)
	}
	for _, action := range engine(t).Actions() {
		assert.Contains(t, string(page), "`"+action.Name+"`")
	}
}
