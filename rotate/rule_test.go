package rotate

import (
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheFirstRuleThatMatchesHolds(t *testing.T) {
	p, err := Parse([]byte(`
[[rule]]
name = "one"
machines = ["web-1"]
[[rule]]
name = "web"
groups = ["web", "db-*"]
keyrings = ["prod"]
[[rule]]
name = "prod"
keyrings = ["prod", "pay-*"]
`))
	require.NoError(t, err)
	for want, volumes := range map[string][]Volume{
		"one":     {{Name: "web-1", Group: "web", Keyring: "prod"}, {Name: "web-1", Keyring: "default"}},
		"web":     {{Name: "web-2", Group: "web", Keyring: "prod"}, {Name: "x", Group: "db-eu", Keyring: "prod"}},
		"prod":    {{Name: "web-11", Group: "www", Keyring: "prod"}, {Name: "y", Group: "db-eu", Keyring: "pay-2"}},
		"default": {{Name: "web-2", Group: "web", Keyring: "default"}, {}},
	} {
		for i := range volumes {
			assert.Equal(t, want, p.Rules[p.forVolume(&volumes[i])].Name, "%+v", volumes[i])
		}
	}
	assert.Equal(t, "prod", p.forKeyring("prod").Name, "rules for machines say nothing of keyrings")
	assert.Equal(t, "default", p.forKeyring("system").Name)
}

// someVolumes are all of one age, each of a machine of its own.
func someVolumes(count int) iter.Seq2[Volume, error] {
	made := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	return func(yield func(Volume, error) bool) {
		for i := range count {
			id := fmt.Sprintf("%032x", i)
			v := Volume{
				ID: id, Machine: id, Name: "m-" + id, Group: "web", Keyring: "default", Bytes: 1 << 34, Created: made,
				Secret:    Secret{Version: 1, Created: made, Wrapped: []Versions{{"default", 1, 1}}},
				Connected: i%20 != 0,
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}
