package vm

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCacheFollowsTheEnvironment(t *testing.T) {
	t.Setenv("HOME", "/home/kim")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("KEYWRIGHT_CACHE", "")
	for _, step := range []struct{ set, to, want string }{
		{"HOME", "/home/kim", "/home/kim/.cache/keywright"},
		{"XDG_CACHE_HOME", "/var/cache/kim", "/var/cache/kim/keywright"},
		{"KEYWRIGHT_CACHE", "/srv/images", "/srv/images"},
	} {
		t.Setenv(step.set, step.to)
		dir, err := Cache()
		require.NoError(t, err)
		assert.Equal(t, step.want, dir)
	}
}

func TestFindKernel(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("KEYWRIGHT_CACHE", cache)
	_, err := FindKernel()
	require.ErrorContains(t, err, "run test/setup vm")

	current := filepath.Join(cache, "kernel", "current")
	write(t, filepath.Join(current, "boot", "vmlinuz-6.1.0"), "kernel")
	write(t, filepath.Join(current, "lib", "modules", "6.1.0", "modules.dep"), "")
	kernel, err := FindKernel()
	require.NoError(t, err)
	assert.Equal(t, "6.1.0", kernel.Release())

	write(t, filepath.Join(current, "boot", "vmlinuz-6.12.0"), "another")
	_, err = FindKernel()
	assert.ErrorContains(t, err, "2 files match")
}

func TestAccelIsForced(t *testing.T) {
	for _, forced := range []Accelerator{KVM, TCG} {
		t.Setenv(accelVariable, string(forced))
		chosen, err := Accel(t.Context())
		require.NoError(t, err)
		assert.Equal(t, forced, chosen.Accelerator)
	}
	t.Setenv(accelVariable, "xen")
	_, err := Accel(t.Context())
	assert.ErrorContains(t, err, "want kvm or tcg")
}

func TestVerdictIsRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm", "accelerator")
	_, known := readVerdict(path, "boot 1")
	assert.False(t, known)
	require.NoError(t, writeVerdict(path, "boot 1", Acceleration{TCG, "no guest\nboots"}))
	verdict, known := readVerdict(path, "boot 1")
	assert.True(t, known)
	assert.Equal(t, Acceleration{TCG, "no guest boots"}, verdict)
	_, known = readVerdict(path, "boot 2")
	assert.False(t, known, "another boot of the host is probed anew")
}
