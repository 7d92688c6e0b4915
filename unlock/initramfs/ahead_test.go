package initramfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/initramfs"
)

// programs puts shell scripts before the system's programs.
func programs(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		put(t, dir, name, "#!/bin/sh\n"+text)
		require.NoError(t, os.Chmod(filepath.Join(dir, name), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// Every kernel's is made ahead, in the same way as it is made then, and nothing that
// boots is touched.
func TestInitramfsIsMadeAhead(t *testing.T) {
	tools, folder := initramfs.Tools{Root: t.TempDir()}, t.TempDir()
	for _, name := range []string{"vmlinuz-6.1", "initrd.img-6.1", "vmlinuz-6.12", "initrd.img-6.12", "initrd.img-6.1.old"} {
		put(t, tools.Root, "boot/"+name, name)
	}
	boot := filepath.Join(tools.Root, "boot")
	programs(t, map[string]string{
		"mkinitramfs":      `echo "$SOURCE_DATE_EPOCH of $3" >"$2"`,
		"update-initramfs": `for v in 6.1 6.12; do mkinitramfs -o ` + boot + `/initrd.img-$v $v; done`,
	})
	made, err := tools.Ahead(t.Context(), folder)
	require.NoError(t, err)
	require.Len(t, made, 2)
	assert.Equal(t, "initrd.img-6.12", read(t, tools, "boot/initrd.img-6.12"))
	require.NoError(t, tools.UpdateAsAhead(t.Context()))
	for image, ahead := range made {
		is, err := os.ReadFile(image)
		require.NoError(t, err)
		was, err := os.ReadFile(ahead)
		require.NoError(t, err)
		assert.Equal(t, string(is), string(was))
	}
	assert.Equal(t, "1 of 6.12\n", read(t, tools, "boot/initrd.img-6.12"))
	assert.Equal(t, "initrd.img-6.1.old", read(t, tools, "boot/initrd.img-6.1.old"))
}

func TestInitramfsThatCannotBeMadeAhead(t *testing.T) {
	tools := initramfs.Tools{Root: t.TempDir()}
	_, err := tools.Ahead(t.Context(), t.TempDir())
	require.ErrorContains(t, err, "there is none")
	put(t, tools.Root, "boot/vmlinuz-6.1", "")
	put(t, tools.Root, "boot/initrd.img-6.1", "")
	programs(t, map[string]string{"mkinitramfs": "echo no room; exit 1", "update-initramfs": "exit 1"})
	_, err = tools.Ahead(t.Context(), t.TempDir())
	require.ErrorContains(t, err, "no room")
	require.ErrorContains(t, tools.UpdateAsAhead(t.Context()), "running update-initramfs")
}
