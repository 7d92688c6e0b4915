package unlock

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// readTarget reads a header that cryptsetup made, on a device of 8 MiB.
func readTarget(t *testing.T, image string) *target {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("luks", "testdata", "headers", image+".img"))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), image)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	require.NoError(t, os.Truncate(path, 8<<20))
	device, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, device.Close()) })
	read := &target{path: path, device: device}
	require.NoError(t, read.read())
	return read
}

// No request of an enrolment waits for ever.
func TestEveryCallHasADeadline(t *testing.T) {
	_, err := call(context.Background(), "kw.example", func(ctx context.Context) (bool, error) {
		_, bounded := ctx.Deadline()
		assert.True(t, bounded)
		return bounded, context.DeadlineExceeded
	})
	assert.Equal(t, ExitUnavailable, ExitCode(err))
}

// A mapping may have a name that a boot would not open it under.
func TestConfiguredNamesAreNamesOfMappings(t *testing.T) {
	v := readTarget(t, "aes256-4096")
	for name, want := range map[string]string{"root": "root", "": "luks-" + v.uuid(), `my\x20root`: "luks-" + v.uuid(), "a b": "luks-" + v.uuid()} {
		v.Name = name
		assert.Equal(t, want, configFor(v, nil, false).Name)
	}
}

// A boot opens a volume as it is open now, whatever crypttab says of it.
func TestConfiguredOptionsAreThoseOfTheMapping(t *testing.T) {
	v := readTarget(t, "aes256-4096")
	v.Options = optionNames(luks.Table{Flags: []string{"allow_discards", "same_cpu_crypt"}, ReadOnly: true}.Options())
	configured := configFor(v, nil, false)
	assert.Equal(t, []string{"discard", "read-only"}, configured.Options)
	require.NoError(t, configured.check())
	assert.Empty(t, optionNames(luks.Table{}.Options()))

	old := VolumeConfig{Device: "UUID=" + v.uuid(), Name: "by-hand"}
	assert.Equal(t, old, configFor(v, []VolumeConfig{old}, false), "what somebody configured stays")
}

// A person is asked for the root's passphrase first.
func TestTheRootIsConfiguredFirst(t *testing.T) {
	data, root := readTarget(t, "aes128-512-argon2id"), readTarget(t, "aes256-4096")
	data.Name, root.Name, root.Root = "data", "root", true
	path := filepath.Join(t.TempDir(), "unlock.toml")
	e := &Enrollment{ConfigPath: path, targets: []*target{data, root}, Config: Config{
		Servers: []string{"https://127.0.0.1:1"}, ServiceKeys: []string{"sha256:" + strings.Repeat("00", 32)},
	}}
	require.NoError(t, e.writeConfig(t.Context()))
	written, err := LoadConfig(path)
	require.NoError(t, err)
	require.Len(t, written.Volumes, 2)
	assert.Equal(t, "root", written.Volumes[0].Name)
}

func TestEnrolmentWipesItsSecrets(t *testing.T) {
	v := readTarget(t, "aes256-4096")
	device, err := os.Open(v.path)
	require.NoError(t, err)
	wiped := &target{device: device, passphrase: secret.Copy([]byte("passphrase")), secret: exchange.ReleasedSecret{
		Key: secret.Copy([]byte("key")), Recovery: secret.Copy([]byte("recovery")),
	}}
	(&Enrollment{targets: []*target{wiped}}).wipe()
	assert.Zero(t, wiped.passphrase.Len()+wiped.secret.Key.Len()+wiped.secret.Recovery.Len())
}
