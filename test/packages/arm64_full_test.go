//go:build integration && full

package packages_test

import (
	"debug/elf"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPackagesForARM64(t *testing.T) {
	debs := build(t, "v1.2.0", "arm64")
	for deb, program := range map[string]string{debs.Service: "usr/bin/keywright", debs.Unlock: "usr/sbin/keywright-unlock"} {
		assert.Equal(t, "arm64\n", output(t, "dpkg-deb", "-f", deb, "Architecture"))
		dir := t.TempDir()
		output(t, "dpkg-deb", "-x", deb, dir)
		file, err := elf.Open(filepath.Join(dir, program))
		require.NoError(t, err)
		assert.Equal(t, elf.EM_AARCH64, file.Machine)
		require.NoError(t, file.Close())
	}
}
