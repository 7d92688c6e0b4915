package claims_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
)

func uki(t testing.TB) claims.Set {
	return set(t, claims.Files, "boot.application u2", "kernel.image k2", "image.signature present",
		"uki.linux l2", "uki.osrel o2", "uki.cmdline c2", "uki.initrd i2", "kernel.cmdline c2wide", "kernel.initrd i2")
}

func base(extra ...string) []string {
	return append([]string{"secureboot.state disabled", "boot.application u1", "separator 4 00000000", "boot.application k1",
		"kernel.cmdline c1wide", "kernel.initrd i1", "uki.linux l1", "uki.cmdline c1", "uki.initrd i1"}, extra...)
}

func TestSuccessorReplacesWhatFollowsFromFiles(t *testing.T) {
	got, err := claims.Successor(set(t, claims.Measurement, base("shim.mok m1")...), uki(t))
	require.NoError(t, err)
	want := set(t, claims.Measurement, "secureboot.state disabled", "boot.application u2", "separator 4 00000000", "boot.application k2",
		"kernel.cmdline c2wide", "kernel.initrd i2", "uki.linux l2", "uki.osrel o2", "uki.cmdline c2", "uki.initrd i2", "shim.mok m1")
	assert.Empty(t, claims.Diff(want, got))
}

func TestSuccessorUnderSecureBootKeepsTheLoader(t *testing.T) {
	was := base()
	was[0], was[1], was[3] = "secureboot.state enabled", "boot.application loader", "boot.application u1"
	got, err := claims.Successor(set(t, claims.Measurement, was...), uki(t))
	require.NoError(t, err)
	assert.Equal(t, []string{"loader", "u2"}, got.Values(claims.BootApplication))
}

func TestSuccessorNamesWhatItCannotPredict(t *testing.T) {
	without := func(list []string, line string) []string {
		return slices.DeleteFunc(list, func(l string) bool { return l == line })
	}
	secure := base()
	secure[0] = "secureboot.state enabled"
	unsigned := set(t, claims.Files, "boot.application u2", "kernel.image k2", "image.signature absent",
		"uki.linux l2", "kernel.cmdline c", "kernel.initrd i2")
	noInitrd := set(t, claims.Files, "boot.application u2", "kernel.image k2", "uki.linux l2", "kernel.cmdline c")
	noKernel := set(t, claims.Files, "boot.application u2", "uki.linux l2", "kernel.cmdline c", "kernel.initrd i2")
	for name, c := range map[string]struct {
		base  []string
		files claims.Set
		want  string
	}{
		"no unified kernel image": {without(base(), "uki.linux l1"), uki(t), "uki.linux"},
		"outside command line":    {base("stub.cmdline x"), uki(t), "stub.cmdline"},
		"credential":              {base("stub.parameter x"), uki(t), "stub.parameter"},
		"extension":               {base("stub.extension x"), uki(t), "stub.extension"},
		"initrd with more in it":  {append(without(base(), "kernel.initrd i1"), "kernel.initrd other"), uki(t), "kernel.initrd"},
		"files without initrd":    {base(), noInitrd, "kernel.initrd"},
		"files without kernel":    {base(), noKernel, "boot.application"},
		"too few applications":    {without(base(), "boot.application k1"), uki(t), "boot.application"},
		"unsigned image":          {secure, unsigned, "secureboot.authority"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := claims.Successor(set(t, claims.Measurement, c.base...), c.files)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := claims.Successor(uki(t), uki(t))
	require.ErrorContains(t, err, "files")
}

func TestTier(t *testing.T) {
	for name, c := range map[string]struct {
		claims []string
		want   claims.Tier
	}{
		"unified kernel image": {base(), claims.Exact},
		"kernel started directly": {[]string{"secureboot.state disabled", "boot.application k", "kernel.cmdline c", "kernel.initrd i"},
			claims.Exact},
		"boot loader":          {base("loader.command x"), claims.Staged},
		"boot loader's file":   {base("loader.file x"), claims.Staged},
		"no UEFI":              {base()[1:], claims.Identity},
		"no application":       {[]string{"secureboot.state enabled", "kernel.cmdline c", "kernel.initrd i"}, claims.Identity},
		"kernel alone":         {[]string{"secureboot.state enabled", "boot.application k"}, claims.Identity},
		"two initrds measured": {[]string{"secureboot.state enabled", "boot.application k", "kernel.cmdline c", "kernel.initrd i", "kernel.initrd j"}, claims.Identity},
		"nothing":              {nil, claims.Identity},
	} {
		assert.Equal(t, c.want, claims.TierOf(set(t, claims.Measurement, c.claims...)), name)
	}
	assert.Equal(t, claims.Identity, claims.TierOf(claims.Set{}))
}
