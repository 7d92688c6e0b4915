package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
	"keywright.dev/unlock/initramfs"
)

// refreshIn runs the verb for a machine that is not enrolled.
func refreshIn(t *testing.T, root string) string {
	t.Helper()
	var out bytes.Buffer
	h := host{stdout: &out, stderr: &out, tools: initramfs.Tools{Root: root}}
	code := run(t.Context(), h, []string{"initramfs", "--config", filepath.Join(root, "unlock.toml")})
	require.Equal(t, unlock.ExitDone, code, out.String())
	return out.String()
}

func TestInitramfsOfMachinesThatAreNotEnrolled(t *testing.T) {
	root := t.TempDir()
	put := func(path string) {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"), 0o644))
	}
	assert.Contains(t, refreshIn(t, root), "no initramfs-tools")
	put("usr/share/initramfs-tools/hook-functions")
	assert.Contains(t, refreshIn(t, root), "not enrolled")
	put("usr/share/initramfs-tools/hooks/keywright")
	assert.Empty(t, refreshIn(t, root))
	put("etc/initramfs-tools/hooks/keywright")
	assert.Contains(t, refreshIn(t, root), "/etc/initramfs-tools/hooks/keywright is not ours and runs in place of the package's")
}
