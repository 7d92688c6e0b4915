package initramfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The hook is quiet and fails nothing where it has nothing to do.
func TestStageHook(t *testing.T) {
	const says = `echo "ran $*"; exit 3`
	for name, c := range map[string]struct {
		client, config, run bool
		want                string
	}{
		"enrolled":               {true, true, true, "ran stage --hook\n"},
		"not enrolled":           {true, false, true, ""},
		"in a chroot":            {true, true, false, ""},
		"the package is removed": {false, true, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			script, err := os.ReadFile("files/stage/hook")
			require.NoError(t, err)
			text := string(script)
			for _, dir := range []string{"/etc/", "/run/"} {
				text = strings.ReplaceAll(text, dir, root+dir)
			}
			put(t, root, "hook", text)
			require.NoError(t, os.Mkdir(filepath.Join(root, "bin"), 0o755))
			if c.client {
				put(t, root, "bin/keywright-unlock", "#!/bin/sh\n"+says)
				require.NoError(t, os.Chmod(filepath.Join(root, "bin/keywright-unlock"), 0o755))
			}
			if c.config {
				put(t, root, "etc/keywright/unlock.toml", "")
			}
			if c.run {
				put(t, root, "run/keywright/receipt", "")
			}
			cmd := exec.CommandContext(t.Context(), "/bin/sh", filepath.Join(root, "hook"))
			cmd.Env = []string{"PATH=" + root + "/bin"}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Equal(t, c.want, string(out))
		})
	}
}
