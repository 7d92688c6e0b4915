package initramfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/initramfs"
)

func places() []string {
	return []string{"hooks", "scripts/local-top", "scripts/init-bottom", "scripts/panic"}
}

// system returns a root that has initramfs-tools.
func system(t *testing.T) initramfs.Tools {
	t.Helper()
	root := t.TempDir()
	put(t, root, "usr/share/initramfs-tools/hook-functions", "")
	put(t, root, "usr/sbin/keywright-unlock", "")
	return initramfs.Tools{Root: root}
}

func put(t *testing.T, root, path, content string) {
	t.Helper()
	path = filepath.Join(root, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func installed(t *testing.T, tools initramfs.Tools) []string {
	t.Helper()
	var list []string
	for _, place := range places() {
		info, err := os.Stat(filepath.Join(tools.Root, "etc/initramfs-tools", place, "keywright"))
		if err == nil {
			assert.Equal(t, os.FileMode(0o755), info.Mode())
			list = append(list, place)
		}
	}
	return list
}

func TestInstallAndRemove(t *testing.T) {
	tools := system(t)
	assert.True(t, tools.Present())
	require.NoError(t, tools.Install())
	require.NoError(t, tools.Install(), "again")
	assert.Equal(t, places(), installed(t, tools))
	require.NoError(t, tools.Remove())
	require.NoError(t, tools.Remove(), "again")
	assert.Empty(t, installed(t, tools))
	assert.False(t, initramfs.Tools{Root: t.TempDir()}.Present())
}

func TestChangedFilesStay(t *testing.T) {
	tools := system(t)
	put(t, tools.Root, "etc/initramfs-tools/scripts/local-top/keywright", "somebody's own")
	require.ErrorContains(t, tools.Install(), "scripts/local-top/keywright: it was changed")
	require.ErrorContains(t, tools.Remove(), "scripts/local-top/keywright: it was changed")
	text, err := os.ReadFile(filepath.Join(tools.Root, "etc/initramfs-tools/scripts/local-top/keywright"))
	require.NoError(t, err)
	assert.Equal(t, "somebody's own", string(text))
}

func TestClientMustBeInItsPlace(t *testing.T) {
	tools := system(t)
	require.NoError(t, os.Remove(filepath.Join(tools.Root, "usr/sbin/keywright-unlock")))
	require.ErrorContains(t, tools.Install(), "install it as /usr/sbin/keywright-unlock")
	assert.Empty(t, installed(t, tools))
}

func TestPackageIsEnough(t *testing.T) {
	tools := system(t)
	put(t, tools.Root, "usr/share/initramfs-tools/hooks/keywright", "")
	assert.True(t, tools.Packaged())
	require.NoError(t, tools.Install())
	assert.Empty(t, installed(t, tools))
}

// The order of scripts is asked of each with "prereqs"; without a configuration
// they do nothing more.
func TestScriptsAnswerInitramfsTools(t *testing.T) {
	if _, err := os.Stat("/etc/keywright/unlock.toml"); err == nil {
		t.Fatal("this machine is configured: its own scripts would run")
	}
	tools := system(t)
	require.NoError(t, tools.Install())
	for place, want := range map[string]string{"hooks": "cryptroot", "scripts/local-top": "", "scripts/init-bottom": "", "scripts/panic": ""} {
		script := filepath.Join(tools.Root, "etc/initramfs-tools", place, "keywright")
		out, err := exec.Command("/bin/sh", script, "prereqs").CombinedOutput()
		require.NoError(t, err, "%s: %s", place, out)
		assert.Equal(t, want, strings.TrimSpace(string(out)), place)
		require.NoError(t, exec.Command("/bin/sh", "-n", script).Run())
		if strings.HasPrefix(place, "scripts/") {
			out, err = exec.Command("/bin/sh", script).CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Empty(t, string(out))
		}
	}
}
