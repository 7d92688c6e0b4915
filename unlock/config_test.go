package unlock_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
)

const goodConfig = `
servers = ["https://kw.example:8443"]
service_keys = ["sha256:0101010101010101010101010101010101010101010101010101010101010101"]
machine = "7f3a1b2c7f3a1b2c7f3a1b2c7f3a1b2c7f3a1b2c7f3a1b2c7f3a1b2c7f3a1b2c"
ek_template = "rsa-2048"
deadline = "2m"

[[volume]]
device = "UUID=8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a02"
name = "root"
root = true
options = ["discard"]

[[volume]]
device = "/dev/vdb"
name = "data"
`

func TestConfig(t *testing.T) {
	c, err := unlock.ParseConfig(goodConfig)
	require.NoError(t, err)
	pins, err := c.Pins()
	require.NoError(t, err)
	assert.Equal(t, byte(1), pins[0][31])
	assert.Equal(t, 2*time.Minute, c.Patience())
	assert.Equal(t, "/dev/tpmrm0", c.TPMPath())
	assert.Len(t, c.Volumes, 2)
	c.Deadline = nil
	assert.Equal(t, unlock.DefaultDeadline, c.Patience())
}

func TestConfigRefuses(t *testing.T) {
	for name, change := range map[string][2]string{
		"unknown key":    {"deadline", "dead_line"},
		"no server":      {`["https://kw.example:8443"]`, "[]"},
		"plain HTTP":     {"https://", "http://"},
		"short pin":      {"0101\"]", "01\"]"},
		"machine":        {"7f3a1b2c\"", "7f3a1b2\""},
		"template":       {"rsa-2048", "rsa-1024"},
		"deadline":       {"2m", "soon"},
		"negative":       {"2m", "-2m"},
		"UUID":           {"8c3a1f40", "8C3A1F40"},
		"relative path":  {"/dev/vdb", "vdb"},
		"no name":        {`"data"`, `""`},
		"path as name":   {`"data"`, `"srv/data"`},
		"control":        {`"data"`, `"control"`},
		"name twice":     {`"data"`, `"root"`},
		"option":         {"discard", "keyscript"},
		"optional root":  {`["discard"]`, `["nofail"]`},
		"two roots":      {`name = "data"`, "name = \"data\"\nroot = true"},
		"key twice":      {`deadline = "2m"`, "deadline = \"2m\"\ndeadline = \"3m\""},
		"unknown volume": {`name = "data"`, "name = \"data\"\nkeyfile = \"/x\""},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, goodConfig, change[0])
			_, err := unlock.ParseConfig(strings.Replace(goodConfig, change[0], change[1], 1))
			require.Error(t, err)
		})
	}
}

func TestConfigIsWrittenAndReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "unlock.toml")
	c, err := unlock.ParseConfig(goodConfig)
	require.NoError(t, err)
	require.NoError(t, c.Write(path))
	read, err := unlock.LoadConfig(path)
	require.NoError(t, err)
	assert.Equal(t, c, read)
	c.Servers = []string{"https://other.example:8443"}
	require.NoError(t, c.Write(path), "what it wrote it may replace")
	read, err = unlock.LoadConfig(path)
	require.NoError(t, err)
	assert.Equal(t, c.Servers, read.Servers)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no temporary file stays")
}

func TestConfigOfSomebodyElseStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unlock.toml")
	require.NoError(t, os.WriteFile(path, []byte(goodConfig), 0o600))
	c, err := unlock.LoadConfig(path)
	require.NoError(t, err)
	require.ErrorIs(t, c.Write(path), unlock.ErrForeignConfig)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, goodConfig, string(text))
}

func TestMissingConfig(t *testing.T) {
	_, err := unlock.LoadConfig(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
