package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/test/golden"
)

var update = flag.Bool("update", false, "write docs/reference/keywright.toml")

func TestReferenceMeansTheDefaults(t *testing.T) {
	text, err := config.Reference()
	require.NoError(t, err)
	golden.Check(t, filepath.Join("..", "..", "..", "docs", "reference", "keywright.toml"), text, *update)
	got, err := config.Parse([]byte(text))
	require.NoError(t, err)
	want := config.Default()
	want.Server.Names, want.Limits.Balancers, want.Attestation.EKRoots, want.Policy.Files = []string{}, []string{}, []string{}, []string{}
	want.Recovery.AgeRecipients = []string{}
	assert.Equal(t, want, got)
	for line := range strings.Lines(text) {
		assert.LessOrEqual(t, len(line), 90, line)
	}
}

func TestEveryKeyIsDescribed(t *testing.T) {
	text, err := config.Reference()
	require.NoError(t, err)
	before := ""
	for line := range strings.Lines(text) {
		if strings.Contains(line, " = ") && !strings.HasPrefix(line, "#") {
			assert.True(t, strings.HasPrefix(before, "# "), "%q has no comment", line)
		}
		before = line
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"[server]\nguest_lisen = \"x\"":                                         `line 2: unknown key "server.guest_lisen": did you mean server.guest_listen?`,
		"[server]\n\nDATA = \"x\"":                                              `line 3: unknown key "server.DATA": did you mean server.data?`,
		"[Server]\ndata = \"x\"":                                                `line 1: unknown key "Server": did you mean server?`,
		"# a\n[nothing]\nx = 1":                                                 `line 2: unknown key "nothing"`,
		"data = \"x\"":                                                          `line 1: unknown key "data"`,
		"[server]\ndata = \"a\"\ndata = \"b\"":                                  "line 3",
		"[server":                                                               "line 1",
		"[limits]\nreleases = \"many\"":                                         "limits.releases",
		"[limits]\nreleases = 0":                                                "limits.releases: want at least 1",
		"[limits]\nrequests_per_second = nan":                                   "limits.requests_per_second: want more than 0",
		"[limits]\nbody_memory = \"1MiB\"":                                      "limits.body_memory: want at least 16MiB",
		"[limits]\nbody_memory = \"-1\"":                                        "want a size such as 96MiB",
		"[limits]\nbody_timeout = \"soon\"":                                     "want a time such as 10s",
		"[limits]\nbalancers = [\"10.0.0.0/99\"]":                               "limits.balancers: entry 1",
		"[server]\nguest_listen = \"8443\"":                                     "server.guest_listen: want ADDRESS:PORT",
		"[server]\nguest_url = \"http://x\"":                                    "server.guest_url: want https://HOST:PORT",
		"[server]\ndata = \"\"":                                                 "server.data: want a folder",
		"[policy]\nshipped = false":                                             "policy: without shipped policies",
		"[audit]\norigin = \"a b\"":                                             "audit.origin: want at most",
		"[limits]\n\nreleases = 1.5":                                            "line 3: limits.releases: want a whole number",
		"[limits]\nrequests_per_second = inf":                                   "line 2: limits.requests_per_second: want more than 0",
		"[limits]\nrequests_per_second = \"5\"":                                 "line 2: limits.requests_per_second: want a number",
		"[limits]\nbody_timeout = 10":                                           "line 2: limits.body_timeout: want a time such as 10s",
		"[server]\ndata = 7":                                                    "line 2: server.data: want a text in quotes",
		"[server]\nnames = \"a\"":                                               `line 2: server.names: want a list of texts, such as ["a", "b"]`,
		"[server]\nnames = [1]":                                                 "server.names: want a list of texts",
		"[policy]\nshipped = \"yes\"":                                           "line 2: policy.shipped: want true or false",
		"server = 7":                                                            "line 1: server: want a section: [server]",
		"[server]\nguest_url = \"https://a@x:1\"":                               "line 2: server.guest_url: want https://HOST:PORT and nothing else",
		"[server]\nguest_url = \"https://x:0\"":                                 "server.guest_url",
		"[server]\nguest_url = \"https://x:99999\"":                             "server.guest_url",
		"[server]\nguest_url = \"https://x:\"":                                  "server.guest_url",
		"[server]\nguest_url = \"https://x?a=b\"":                               "server.guest_url",
		"[server]\nguest_url = \"https://x/v1\"":                                "server.guest_url",
		"[server]\nguest_listen = \"[::]:1\"\nmetrics_listen = \"127.0.0.1:1\"": "line 3: server.metrics_listen: want another port",
		"[recovery]\nage_recipients = [\"alice\"]":                              "line 2: recovery.age_recipients: entry 1 is no recipient of age",
		"[log]\nlevel = \"loud\"":                                               "log.level: want debug, info, warn or error",
		"[log]\nlevel = \"INFO\"":                                               "log.level",
	} {
		_, err := config.Parse([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
}

func TestValuesThatAreMeant(t *testing.T) {
	for _, text := range []string{
		"", "[limits]\nrequests_per_second = 5", "[limits]\nbody_memory = 33554432",
		"[server]\nguest_url = \"https://x\"", "[server]\nguest_url = \"https://[2001:db8::1]:8443/\"",
		"[server]\nguest_listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"",
		"[server]\nguest_listen = \"192.0.2.1:1\"\nmetrics_listen = \"127.0.0.1:1\"",
	} {
		_, err := config.Parse([]byte(text))
		assert.NoError(t, err, text)
	}
}

// A pipe is not waited for, and a device not read to an end that it has not.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{pipe, "/dev/zero", t.TempDir()} {
		_, err := config.Load(path)
		require.ErrorContains(t, err, "is no regular file")
	}
}

func TestSeveralMistakesAreNamedAtOnce(t *testing.T) {
	_, err := config.Parse([]byte("[limits]\nreleases = 0\nenrolments = 0\n"))
	require.Error(t, err)
	assert.Len(t, strings.Split(err.Error(), "\n"), 2)
}

func TestFilesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.toml")
	require.NoError(t, os.WriteFile(path, make([]byte, 2<<20), 0o600))
	_, err := config.Load(path)
	require.ErrorContains(t, err, "more than 1048576 bytes")
	_, err = config.Load(path + ".missing")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]config.Size{"0": 0, "17": 17, "1KiB": 1 << 10, "96MiB": 96 << 20, "2GiB": 2 << 30} {
		var s config.Size
		require.NoError(t, s.UnmarshalText([]byte(text)))
		assert.Equal(t, want, s)
		back, err := s.MarshalText()
		require.NoError(t, err)
		assert.Equal(t, text, string(back))
	}
	for _, bad := range []string{"", "MiB", "1.5MiB", "1MB", "9999999GiB", "-1KiB"} {
		var s config.Size
		assert.Error(t, s.UnmarshalText([]byte(bad)), bad)
	}
}

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse(text)
		if err == nil {
			require.NoError(t, c.Check())
		}
	})
}
