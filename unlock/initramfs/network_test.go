package initramfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bootFiles is a root in which local-top runs, with stand-ins for what only an
// initramfs has.
type bootFiles struct{ root string }

func newBootFiles(t *testing.T, networking, client string) bootFiles {
	t.Helper()
	b := bootFiles{t.TempDir()}
	script, err := os.ReadFile("files/scripts/local-top")
	require.NoError(t, err)
	text := string(script)
	for _, dir := range []string{"/etc/", "/run/", "/scripts/", "/sys/"} {
		text = strings.ReplaceAll(text, dir, b.root+dir)
	}
	put(t, b.root, "local-top", text)
	put(t, b.root, "etc/keywright/unlock.toml", "")
	put(t, b.root, "run/empty", "")
	put(t, b.root, "scripts/functions", "wait_for_udev() { :; }\nconfigure_networking() {\n"+networking+"\n}\n")
	for name, program := range map[string]string{"keywright-unlock": client, "modprobe": "", "mount": "", "pidof": `cat "$ROOT/ipconfig" 2>/dev/null`} {
		put(t, b.root, "bin/"+name, "#!/bin/sh\n"+program)
		require.NoError(t, os.Chmod(filepath.Join(b.root, "bin", name), 0o755))
	}
	return b
}

// run runs local-top to its end.
func (b bootFiles) run(t *testing.T, ip string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", filepath.Join(b.root, "local-top"))
	cmd.Env = []string{"PATH=" + b.root + "/bin:" + os.Getenv("PATH"), "ROOT=" + b.root, "IP=" + ip}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func (b bootFiles) read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.root, path))
	require.NoError(t, err)
	return string(text)
}

// The distribution gives DHCP up after some minutes, and ends the shell.
func TestNetworkIsTriedAsLongAsTheClient(t *testing.T) {
	b := newBootFiles(t, `
echo "$IP" >>"$ROOT/tries"
if [ "$(wc -l <"$ROOT/tries")" -lt 3 ]; then
  . "$ROOT/run/net-eth0.conf"
fi
printf 'IPV4DNS0=192.0.2.53\nIPV4DNS1=0.0.0.0\nDNSDOMAIN=example\n' >"$ROOT/run/net-eth0.conf"`,
		`until grep -q search "$ROOT/etc/resolv.conf" 2>/dev/null; do sleep 0.1; done`)
	b.run(t, "")
	assert.Equal(t, "dhcp\ndhcp\ndhcp\n", b.read(t, "tries"))
	assert.Equal(t, "nameserver 192.0.2.53\nsearch example\n", b.read(t, "etc/resolv.conf"))
}

func TestNetworkThatIsOffStaysOff(t *testing.T) {
	for _, ip := range []string{"off", "none"} {
		b := newBootFiles(t, `: >"$ROOT/tried"`, `sleep 0.5`)
		b.run(t, ip)
		_, err := os.Stat(filepath.Join(b.root, "tried"))
		assert.ErrorIs(t, err, os.ErrNotExist)
	}
}

// Where a passphrase was typed while DHCP is tried, nothing goes on in the system.
func TestNetworkIsLeftAloneAfterTheClient(t *testing.T) {
	b := newBootFiles(t, `
sleep 1000 &
echo $! >"$ROOT/ipconfig"
wait
: >"$ROOT/next"
sleep 1000`,
		`until [ -s "$ROOT/ipconfig" ]; do sleep 0.1; done`)
	b.run(t, "")
	pid := strings.TrimSpace(b.read(t, "ipconfig"))
	require.Eventually(t, func() bool {
		state, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(state), ") Z ")
	}, time.Minute, time.Millisecond)
	_, err := os.Stat(filepath.Join(b.root, "next"))
	assert.ErrorIs(t, err, syscall.ENOENT, "nothing was begun after it")
}
