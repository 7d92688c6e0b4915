package vm

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestModulesLoadAfterWhatTheyNeed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "modules.dep"), "net/virtio_net.ko: net/net_failover.ko net/failover.ko drivers/virtio.ko\n"+
		"net/net_failover.ko: net/failover.ko\nnet/failover.ko:\ndrivers/virtio.ko:\nmd/dm-mod.ko:\n")
	write(t, filepath.Join(dir, "modules.builtin"), "kernel/fs/ext4/ext4.ko\n")
	tree, err := readModules(dir)
	require.NoError(t, err)

	order, err := tree.order([]string{"virtio-net", "ext4", "dm_mod", "virtio"})
	require.NoError(t, err)
	assert.Equal(t, []string{"drivers/virtio.ko", "net/failover.ko", "net/net_failover.ko", "net/virtio_net.ko", "md/dm-mod.ko"}, order)

	_, err = tree.order([]string{"floppy"})
	assert.ErrorContains(t, err, "has no module floppy")
	_, err = readModules(t.TempDir())
	assert.ErrorContains(t, err, "run test/setup vm")
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}
