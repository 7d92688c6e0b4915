package rotate

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWhatIsNotSetIsAsShipped(t *testing.T) {
	p, err := Parse(nil)
	require.NoError(t, err)
	assert.Equal(t, Default(), p)
}

func TestARuleIsLaidOverTheDefaults(t *testing.T) {
	p, err := Parse([]byte(`
[default]
secret_age = "180d"
rate = "5/m"
windows = [{ opens = "0 22 * * *", zone = "UTC", lasts = "6h" }]

[[rule]]
name = "restricted"
keyrings = ["prod-*"]
priority = 90
keyring_age = "26w"
volume_key_age = "730d"
windows = []

[[rule]]
name = "web"
groups = ["web"]
machines = ["web-*"]
secret_age = "never"
concurrency = 7
answer_within = "2d"
retain_for_restore = "36h"
`))
	require.NoError(t, err)
	require.Len(t, p.Rules, 3)
	restricted, web, others := p.Rules[0], p.Rules[1], p.Rules[2]

	assert.Equal(t, "restricted", restricted.Name)
	assert.Equal(t, 90, restricted.Priority)
	assert.Equal(t, Age(182*day), restricted.KeyringAge)
	assert.Equal(t, Age(180*day), restricted.SecretAge)
	assert.Equal(t, Age(730*day), restricted.VolumeKeyAge)
	assert.Equal(t, Rate{5, time.Minute}, restricted.Rate)
	assert.Empty(t, restricted.Windows)

	assert.Equal(t, Never, web.SecretAge)
	assert.Equal(t, 7, web.Concurrency)
	assert.Equal(t, 2*day, web.AnswerWithin)
	assert.Equal(t, 36*time.Hour, web.RetainForRestore)
	assert.Len(t, web.Windows, 1)

	assert.Equal(t, DefaultRule, others.Name)
	assert.Equal(t, Age(180*day), others.SecretAge)
	assert.Equal(t, Age(365*day), others.KeyringAge)
}

func TestJitterIsShortenedWhereAgesAreShort(t *testing.T) {
	p, err := Parse([]byte("[default]\nsecret_age = \"10d\"\n[[rule]]\nname = \"a\"\nkeyrings = [\"*\"]\nsecret_age = \"4h\"\n"))
	require.NoError(t, err)
	assert.Equal(t, 2*time.Hour, p.Rules[0].Jitter)
	assert.Equal(t, 5*day, p.Rules[1].Jitter)
	p, err = Parse([]byte("[default]\njitter = \"none\"\n"))
	require.NoError(t, err)
	assert.Zero(t, p.Rules[0].Jitter)
}

func TestMistakesInAPolicyAreNamed(t *testing.T) {
	const rule = "[[rule]]\nname = \"a\"\n"
	for text, want := range map[string]string{
		"[default]\nsecret_age = \"1y\"":                                    `default: secret_age: want "never", or a number and w, d, h or m, such as 90d`,
		"[default]\nsecret_age = \"0d\"":                                    "secret_age: want",
		"[default]\nsecret_age = \"09d\"":                                   "secret_age: want",
		"[default]\nsecret_age = \"40000d\"":                                "secret_age: want",
		"[default]\nsecret_age = \"1h30m\"":                                 "secret_age: want",
		"[default]\nsecret_age = 90":                                        "line 2: default.secret_age: want a text in quotes",
		"[default]\nrate = [\"1/h\"]":                                       "line 2: default.rate: want a text in quotes",
		"[default]\nconcurrency = 1.5":                                      "line 2: default.concurrency: want a whole number",
		"[default]\nwindows = \"night\"":                                    "line 2 (last key \"default.windows\"): incompatible types",
		"default = 7":                                                       "expected table but found int64: see docs/rotation.md",
		"[default]\nsecrets_age = \"90d\"":                                  `unknown key "default.secrets_age": docs/rotation.md lists those that there are`,
		"[defaults]":                                                        `unknown key "defaults"`,
		"secret_age = \"90d\"":                                              `unknown key "secret_age"`,
		"[default]\nname = \"a\"":                                           `unknown key "default.name"`,
		"a = 1\n[default\n":                                                 "line 3: ",
		"[default]\nrate = \"60\"":                                          "default: rate: want a number from 1 to 1000000 a minute or an hour, such as 5/m or 60/h",
		"[default]\nrate = \"0/h\"":                                         "rate: want",
		"[default]\nrate = \"1/d\"":                                         "rate: want",
		"[default]\nconcurrency = 0":                                        "concurrency: want a number from 1 to 10000",
		"[default]\npriority = 101":                                         "priority: want a number from 0 to 100",
		"[default]\njitter = \"300d\"":                                      "jitter: want at most half of the shortest age, which is 365d",
		"[default]\njitter = \"some\"":                                      `jitter: want "none", or a number`,
		"[default]\nretain_for_restore = \"never\"":                         "retain_for_restore: want a number",
		"[default]\ndestroy_wait = \"6d\"":                                  "destroy_wait: want 7d to 30d",
		"[default]\ndestroy_wait = \"31d\"":                                 "destroy_wait: want 7d to 30d",
		"[default]\nwindows = [{}]":                                         "windows: entry 1: zone: want the name of a time zone",
		"[default]\nwindows = [{ opens = \"0 22 * * *\", zone = \"UTC\" }]": "windows: entry 1: lasts: want a time from 10m to 7d",
		"[default]\nwindows = [{ opens = \"0 22 * * *\", zone = \"UTC\", lasts = \"9m\" }]":      "lasts: want",
		"[default]\nwindows = [{ opens = \"0 22 * * *\", zone = \"Local\", lasts = \"1h\" }]":    "zone: want the name of a time zone",
		"[default]\nwindows = [{ opens = \"0 22 * * *\", zone = \"Mars/Base\", lasts = \"1h\"}]": `zone: this system knows no time zone "Mars/Base"`,
		"[default]\nwindows = [{ opens = \"@daily\", zone = \"UTC\", lasts = \"1h\" }]":          "opens: want five fields as in a crontab",
		"[default]\nwindows = [{ opens = \"0 0 22 * * *\", zone = \"UTC\", lasts = \"1h\" }]":    "opens: want five fields as in a crontab",
		"[default]\nwindows = [{ opens = \"0 24 * * *\", zone = \"UTC\", lasts = \"1h\" }]":      "opens: want five fields as in a crontab",
		"[default]\nwindows = [{ opens = \"0 0 30 2 *\", zone = \"UTC\", lasts = \"1h\" }]":      "opens: there is no such day",
		"[default]\nwindows = [{ opens = \"\", cron = \"x\" }]":                                  `unknown key "default.windows.cron"`,
		"[[rule]]\nsecret_age = \"1d\"":                      `rule 1 (""): name: want a name`,
		"[[rule]]\nname = \"a*\"":                            `rule 1 ("a*"): name: want a name`,
		"[[rule]]\nname = \"default\"":                       "rule 1 (default): name: another rule has it",
		rule + "secret_age = \"1d\"":                         "rule 1 (a): it has neither keyrings nor groups nor machines, and would match everything: set it in [default]",
		rule + rule:                                          "rule 2 (a): name: another rule has it",
		rule + "keyrings = []":                               "rule 1 (a): keyrings: want 1 to 64 names, or leave it out to match all",
		rule + "groups = [\"web?\"]":                         `groups: want names of a-z, 0-9, - and ., in which * stands for any characters, not "web?"`,
		rule + "machines = [\"\"]":                           "machines: want names",
		rule + "machines = [\"[a\"]":                         "machines: want names",
		rule + "groups = \"web\"":                            `line 3: rule.groups: want a list of names, such as ["a", "b"]`,
		rule + "groups = [1]":                                "line 3: rule.groups: want a list of names",
		rule + "groups = [\"web\"]\nkeyring_age = \"1d\"":    "keyring_age: a keyring serves all of its machines: set it in a rule without groups and machines",
		rule + "machines = [\"web\"]\ndestroy_wait = \"7d\"": "destroy_wait: a keyring serves",
		strings.Repeat("[[rule]]\n", maxRules+1):             "the policy has more than 256 rules",
		strings.Repeat("#", MaxPolicy+1):                     "the policy has more than 1048576 bytes",
	} {
		_, err := Parse([]byte(text))
		assert.ErrorContains(t, err, want, "%.200s", text)
	}
}

func TestAllMistakesInAPolicyAreNamedAtOnce(t *testing.T) {
	_, err := Parse([]byte("[default]\nrate = \"x\"\npriority = -1\n[[rule]]\nname = \"b\"\ngroups = [\"b\"]\nsecret_age = \"x\"\n"))
	require.Error(t, err)
	assert.Len(t, strings.Split(err.Error(), "\n"), 3)
}

func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add("[default]\nsecret_age = \"180d\"\nrate = \"5/m\"\nwindows = [{ opens = \"0 22 * * *\", zone = \"UTC\", lasts = \"6h\" }]")
	f.Add("[[rule]]\nname = \"a\"\nkeyrings = [\"prod-*\"]\nkeyring_age = \"26w\"\nvolume_key_age = \"never\"\n")
	f.Add("[[rule]]\nname = \"a\"\ngroups = [\"*\"]\njitter = \"none\"\nconcurrency = 10000\nretain_for_restore = \"1m\"\n")
	f.Add("[default]\nwindows = [{ opens = \"0 0 30 2 *\", zone = \"Europe/Berlin\", lasts = \"7d\" }]")
	f.Add("rule = [{ name = \"x\", windows = [] }]\ndefault = {}")
	f.Add("default.secret_age = \"1m\"")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse([]byte(text))
		if err != nil {
			return
		}
		require.NotEmpty(t, p.Rules)
		assert.Equal(t, DefaultRule, p.Rules[len(p.Rules)-1].Name)
		for _, r := range p.Rules {
			assert.GreaterOrEqual(t, r.DestroyWait, 7*day)
			assert.Positive(t, r.Concurrency)
			assert.Positive(t, r.Rate.Count)
			assert.Positive(t, r.RetainForRestore)
			if r.SecretAge != Never {
				assert.LessOrEqual(t, r.Jitter, time.Duration(r.SecretAge)/2)
			}
		}
		_, err = Make(State{Volumes: someVolumes(3)}, p, time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC))
		assert.NoError(t, err)
	})
}
