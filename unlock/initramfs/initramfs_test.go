package initramfs_test

import (
	"crypto/sha256"
	"encoding/hex"
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

// install installs where nobody changed anything.
func install(t *testing.T, tools initramfs.Tools) {
	t.Helper()
	changed, err := tools.Install()
	require.NoError(t, err)
	assert.Empty(t, changed)
}

// older is a script as another version of ours would have written it.
func older() string {
	sum := sha256.Sum256([]byte("#!/bin/sh\n: of another version\n"))
	return "#!/bin/sh\n# keywright-unlock wrote this file; SHA-256 of its other lines: " + hex.EncodeToString(sum[:]) + "\n: of another version\n"
}

const localTop = "etc/initramfs-tools/scripts/local-top/keywright"

func read(t *testing.T, tools initramfs.Tools, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(tools.Root, path))
	require.NoError(t, err)
	return string(text)
}

func TestInstallAndRemove(t *testing.T) {
	tools := system(t)
	assert.True(t, tools.Present())
	install(t, tools)
	install(t, tools) // again
	assert.Equal(t, places(), installed(t, tools))
	require.NoError(t, tools.Remove())
	require.NoError(t, tools.Remove(), "again")
	assert.Empty(t, installed(t, tools))
	assert.False(t, initramfs.Tools{Root: t.TempDir()}.Present())
}

func TestOtherVersionsAreReplacedAndRemoved(t *testing.T) {
	tools := system(t)
	put(t, tools.Root, localTop, older())
	install(t, tools)
	assert.Equal(t, places(), installed(t, tools))
	assert.Contains(t, read(t, tools, localTop), "keywright-unlock boot")

	put(t, tools.Root, localTop, older())
	require.NoError(t, tools.Remove())
	assert.Empty(t, installed(t, tools))
}

func TestChangedFilesStay(t *testing.T) {
	for name, text := range map[string]string{
		"somebody's own":     "#!/bin/sh\nreboot\n",
		"no line":            "reboot",
		"nothing":            "",
		"edited":             older() + "reboot\n",
		"edited in front":    "#!/bin/bash\n" + strings.SplitAfterN(older(), "\n", 2)[1],
		"digest of no bytes": "#!/bin/sh\n# keywright-unlock wrote this file; SHA-256 of its other lines: \n",
	} {
		t.Run(name, func(t *testing.T) {
			tools := system(t)
			put(t, tools.Root, localTop, text)
			const says = "scripts/local-top/keywright: somebody changed it, so it stays as it is: move it away"
			_, err := tools.Install()
			require.ErrorContains(t, err, says)
			require.ErrorContains(t, tools.Remove(), says)
			assert.Equal(t, text, read(t, tools, localTop))
		})
	}
}

func TestClientMustBeInItsPlace(t *testing.T) {
	tools := system(t)
	require.NoError(t, os.Remove(filepath.Join(tools.Root, "usr/sbin/keywright-unlock")))
	_, err := tools.Install()
	require.ErrorContains(t, err, "install it as /usr/sbin/keywright-unlock")
	assert.Empty(t, installed(t, tools))
}

// What is in /etc stands before what a package brings: what we wrote there goes
// when the package comes, and what somebody changed is named.
func TestPackageIsEnough(t *testing.T) {
	tools := system(t)
	install(t, tools)
	put(t, tools.Root, "etc/initramfs-tools/scripts/panic/keywright", older())
	put(t, tools.Root, localTop, "#!/bin/sh\nreboot\n")
	put(t, tools.Root, "usr/share/initramfs-tools/hooks/keywright", "")
	assert.True(t, tools.Packaged())
	changed, err := tools.Install()
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Join(tools.Root, localTop)}, changed)
	assert.Equal(t, "#!/bin/sh\nreboot\n", read(t, tools, localTop))
	require.NoError(t, os.Remove(filepath.Join(tools.Root, localTop)))
	install(t, tools)
	assert.Empty(t, installed(t, tools))
}

// The order of scripts is asked of each with "prereqs"; without a configuration
// they do nothing more.
func TestScriptsAnswerInitramfsTools(t *testing.T) {
	if _, err := os.Stat("/etc/keywright/unlock.toml"); err == nil {
		t.Fatal("this machine is configured: its own scripts would run")
	}
	tools := system(t)
	install(t, tools)
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

// What announces the next boots, and the agent, is written with the scripts, starts
// with the system, and is gone with them.
func TestUnitsComeAndGo(t *testing.T) {
	tools := system(t)
	install(t, tools)
	for _, hook := range []string{"etc/kernel/postinst.d/zzz-keywright", "etc/kernel/postrm.d/zzz-keywright", "etc/initramfs/post-update.d/keywright"} {
		assert.Contains(t, read(t, tools, hook), "keywright-unlock stage --hook")
	}
	assert.Contains(t, read(t, tools, "etc/systemd/system/timers.target.wants/keywright-unlock-stage.timer"), "OnUnitActiveSec")
	assert.Contains(t, read(t, tools, "etc/systemd/system/paths.target.wants/keywright-unlock-stage.path"), "grub.cfg")
	assert.Contains(t, read(t, tools, "etc/systemd/system/multi-user.target.wants/keywright-unlock-agent.service"), "keywright-unlock agent")
	require.NoError(t, tools.Ready())
	require.NoError(t, os.Remove(filepath.Join(tools.Root, localTop)))
	require.ErrorContains(t, tools.Ready(), localTop)

	require.NoError(t, tools.Remove())
	require.NoError(t, filepath.WalkDir(filepath.Join(tools.Root, "etc"), func(path string, d os.DirEntry, err error) error {
		assert.True(t, d.IsDir(), path)
		return err
	}))
}
