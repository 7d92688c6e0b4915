//go:build integration

package packages_test

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/packages"
)

func build(t *testing.T, version, arch string) packages.Debs {
	t.Helper()
	debs, err := packages.Build(t.Context(), t.TempDir(), version, arch)
	require.NoError(t, err)
	return debs
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func digest(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return sha256.Sum256(content)
}

// TestPackagesHoldWhatTheyPromise looks into the packages without installing them.
func TestPackagesHoldWhatTheyPromise(t *testing.T) {
	debs := build(t, "v1.2.0-rc.1-3-gabcdef0", "amd64")
	t.Run("reproducible", func(t *testing.T) {
		again := build(t, "v1.2.0-rc.1-3-gabcdef0", "amd64")
		for first, second := range map[string]string{debs.Service: again.Service, debs.Unlock: again.Unlock} {
			assert.Equal(t, digest(t, first), digest(t, second), first)
		}
	})
	t.Run("lintian", func(t *testing.T) {
		args := []string{"--fail-on", "error,warning"}
		if os.Geteuid() == 0 {
			args = append(args, "--allow-root")
		}
		assert.Empty(t, output(t, "lintian", append(args, debs.Service, debs.Unlock)...))
	})
	t.Run("fields", func(t *testing.T) {
		for deb, want := range map[string]string{debs.Service: "keywright", debs.Unlock: "keywright-unlock"} {
			assert.Equal(t, "Package: "+want+"\nVersion: 1.2.0~rc.1+3.gabcdef0-1\nArchitecture: amd64\n", output(t, "dpkg-deb", "-f", deb, "Package", "Version", "Architecture"))
		}
	})
	t.Run("files of the service", func(t *testing.T) {
		list := contents(t, debs.Service)
		assert.Equal(t, map[string]string{
			"/usr/bin/keywright": "-rwxr-xr-x", "/etc/keywright/": "drwxr-xr-x",
			"/usr/lib/systemd/system/keywright.service": "-rw-r--r--", "/usr/lib/sysusers.d/keywright.conf": "-rw-r--r--",
			"/usr/share/doc/keywright/examples/keywright.toml": "-rw-r--r--", "/usr/share/doc/keywright/reference.toml": "-rw-r--r--",
			"/usr/share/lintian/overrides/keywright": "-rw-r--r--",
		}, others(list, documents("keywright"), "/usr/share/man/man1/"))
		assert.Contains(t, list, "/usr/share/man/man1/keywright.1.gz")
		assert.Contains(t, list, "/usr/share/man/man1/keywright-machine-approve.1.gz")
		assert.NotContains(t, list, "/usr/share/man/man1/keywright-completion.1.gz")
	})
	t.Run("files of the client", func(t *testing.T) {
		assert.Equal(t, map[string]string{
			"/usr/sbin/keywright-unlock": "-rwxr-xr-x", "/etc/keywright/": "drwxr-xr-x",
			"/usr/share/initramfs-tools/hooks/keywright":               "-rwxr-xr-x",
			"/usr/share/initramfs-tools/scripts/local-top/keywright":   "-rwxr-xr-x",
			"/usr/share/initramfs-tools/scripts/init-bottom/keywright": "-rwxr-xr-x",
			"/usr/share/initramfs-tools/scripts/panic/keywright":       "-rwxr-xr-x",
			// What announces the next boots.
			"/etc/kernel/postinst.d/zzz-keywright-unlock":                                    "-rwxr-xr-x",
			"/etc/kernel/postrm.d/zzz-keywright-unlock":                                      "-rwxr-xr-x",
			"/etc/initramfs/post-update.d/keywright-unlock":                                  "-rwxr-xr-x",
			"/usr/lib/systemd/system/keywright-unlock-stage.service":                         "-rw-r--r--",
			"/usr/lib/systemd/system/keywright-unlock-stage.timer":                           "-rw-r--r--",
			"/usr/lib/systemd/system/keywright-unlock-stage.path":                            "-rw-r--r--",
			"/usr/lib/systemd/system/timers.target.wants/keywright-unlock-stage.timer":       "l---------",
			"/usr/lib/systemd/system/paths.target.wants/keywright-unlock-stage.path":         "l---------",
			"/usr/lib/systemd/system/keywright-unlock-agent.service":                         "-rw-r--r--",
			"/usr/lib/systemd/system/multi-user.target.wants/keywright-unlock-agent.service": "l---------",
			"/usr/lib/systemd/system/keywright-unlock-repin.service":                         "-rw-r--r--",
			"/usr/lib/systemd/system/keywright-unlock-repin.timer":                           "-rw-r--r--",
			"/usr/lib/systemd/system/keywright-unlock-repin.path":                            "-rw-r--r--",
			"/usr/lib/systemd/system/timers.target.wants/keywright-unlock-repin.timer":       "l---------",
			"/usr/lib/systemd/system/paths.target.wants/keywright-unlock-repin.path":         "l---------",
			"/usr/share/lintian/overrides/keywright-unlock":                                  "-rw-r--r--",
			"/usr/share/man/man8/keywright-unlock.8.gz":                                      "-rw-r--r--",
		}, others(contents(t, debs.Unlock), documents("keywright-unlock"), ""))
	})
}

// contents returns the modes of a package's files, and of the folders below /etc.
// All belong to root.
func contents(t *testing.T, deb string) map[string]string {
	t.Helper()
	line := regexp.MustCompile(`^(\S+) root/root +\d+ \S+ \S+ \.(/\S*)(?: -> \S+)?$`)
	files := make(map[string]string)
	for _, text := range strings.Split(strings.TrimSpace(output(t, "dpkg-deb", "-c", deb)), "\n") {
		m := line.FindStringSubmatch(text)
		require.NotNil(t, m, text)
		if !strings.HasPrefix(m[1], "d") || strings.HasPrefix(m[2], "/etc/keywright") {
			files[m[2]] = m[1]
		}
	}
	return files
}

// documents is what every package has.
func documents(name string) []string {
	doc := "/usr/share/doc/" + name
	return []string{
		doc + "/copyright", doc + "/changelog.gz", doc + "/changelog.Debian.gz",
		"/usr/share/bash-completion/completions/" + name, "/usr/share/zsh/vendor-completions/_" + name,
		"/usr/share/fish/vendor_completions.d/" + name + ".fish",
	}
}

// others leaves out the paths, which must be there, and what begins with a prefix.
func others(files map[string]string, paths []string, prefix string) map[string]string {
	rest := make(map[string]string)
	for path, mode := range files {
		if prefix == "" || !strings.HasPrefix(path, prefix) {
			rest[path] = mode
		}
	}
	for _, path := range paths {
		if rest[path] == "-rw-r--r--" {
			delete(rest, path)
		} else {
			rest[path] = "missing, or of another mode"
		}
	}
	return rest
}
