package claims_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
)

const (
	oneUUID   = "11111111-2222-3333-4444-555555555555"
	otherUUID = "66666666-7777-8888-9999-AAAAAAAAAAAA"
)

func TestLoaderLineNumbersWhatNamesAMachine(t *testing.T) {
	for text, want := range map[string][]string{
		"/vmlinuz ro quiet":                    {"/vmlinuz ro quiet"},
		"/vmlinuz root=/dev/mapper/vg-root ro": {"/vmlinuz root=<1> ro", "1 /dev/mapper/vg-root"},
		"/vmlinuz root=UUID=" + oneUUID + " resume=/dev/mapper/swap": {
			"/vmlinuz root=<1> resume=<2>", "1 UUID=" + oneUUID, "2 /dev/mapper/swap",
		},
		"/vmlinuz root=LABEL=root rd.luks.uuid=luks-" + oneUUID + " rd.luks.name=" + oneUUID + "=root x=" + otherUUID: {
			"/vmlinuz root=<1> rd.luks.uuid=luks-<2> rd.luks.name=<2>=root x=<3>", "1 LABEL=root", "2 " + oneUUID, "3 " + otherUUID,
		},
		"/vmlinuz myroot=/dev/vda1": {"/vmlinuz myroot=/dev/vda1"},
	} {
		line, variables, err := claims.LoaderLine(text)
		require.NoError(t, err)
		got := []string{line.Value}
		for _, v := range variables {
			got = append(got, v.Value)
		}
		assert.Equal(t, want, got)
	}
}

func TestLoaderLineRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"/vmlinuz root=<1>":                            "character <",
		"/vmlinuz root=/dev/vda1":                      "could mount the root",
		"/vmlinuz root=PARTUUID=" + oneUUID:            "could mount the root",
		"/vmlinuz root=/dev/mapper/r root=0xfe00":      "could mount the root",
		"/vmlinuz " + strings.Repeat("x", 4096):        "longer than a claim",
		"/vmlinuz resume=" + strings.Repeat("x", 4095): "longer than a claim",
		"/vmlinuz ä": "printable ASCII",
		"":           "printable ASCII",
	} {
		_, _, err := claims.LoaderLine(text)
		assert.ErrorContains(t, err, want)
	}
}

// Line and variables together determine the text.
func FuzzLoaderLine(f *testing.F) {
	f.Add("/vmlinuz root=UUID=" + oneUUID + " rd.luks.uuid=luks-" + oneUUID)
	f.Fuzz(func(t *testing.T, text string) {
		line, variables, err := claims.LoaderLine(text)
		if err != nil {
			return
		}
		for i := len(variables) - 1; i >= 0; i-- {
			number, value, _ := strings.Cut(variables[i].Value, " ")
			line.Value = strings.ReplaceAll(line.Value, "<"+number+">", value)
		}
		require.Equal(t, text, line.Value)
	})
}

func grubFiles(t testing.TB, extra ...string) claims.Set {
	return set(t, claims.Files, append([]string{
		"boot.application shim", "boot.application grub", "kernel.image k2", "image.signature present", "kernel.cmdline-text /vmlinuz-2 root=/dev/mapper/root ro",
		"loader.kernel K2", "loader.file E", "loader.file G2", "loader.environment present", "loader.initrd I2",
	}, extra...)...)
}

func grubBase(t testing.TB, lines ...string) claims.Set {
	return set(t, claims.Measurement, append([]string{
		"boot.application shim", "boot.application grub", "boot.application k1", "boot.application k1", "secureboot.state enabled",
	}, lines...)...)
}

func TestSuccessorOfABootByGRUB(t *testing.T) {
	base := grubBase(t, "loader.cmdline /vmlinuz-1 root=<1> ro quiet", "loader.kernel K1", "shim.mok m")
	got, err := claims.Successor(base, grubFiles(t))
	require.NoError(t, err)
	assert.Empty(t, claims.Diff(set(t, claims.Measurement,
		"boot.application shim", "boot.application grub", "boot.application k2", "boot.application k2", "secureboot.state enabled",
		"loader.cmdline /vmlinuz-2 root=<1> ro", "loader.kernel K2", "shim.mok m"), got))

	platform := set(t, claims.Platform, "boot.variable b", "disk.gpt d", "loader.variable 1 /dev/mapper/old", "loader.file E",
		"loader.file G1", "loader.environment present", "loader.environment present", "loader.initrd I1")
	next, err := claims.PlatformSuccessor(platform, grubFiles(t))
	require.NoError(t, err)
	assert.Empty(t, claims.Diff(set(t, claims.Platform, "boot.variable b", "disk.gpt d", "loader.variable 1 /dev/mapper/root",
		"loader.file E", "loader.file G2", "loader.environment present", "loader.initrd I2"), next))
}

// An update of GRUB is as predictable as one of the kernel.
func TestSuccessorByAnotherGRUB(t *testing.T) {
	files := set(t, claims.Files, "boot.application shim", "boot.application grub2", "kernel.image k1", "image.signature present",
		"kernel.cmdline-text /v root=/dev/mapper/root", "loader.kernel K1")
	got, err := claims.Successor(grubBase(t, "loader.cmdline /v root=<1>", "loader.kernel K1"), files)
	require.NoError(t, err)
	assert.Equal(t, []string{"shim", "grub2", "k1", "k1"}, got.Values(claims.BootApplication))
}

func TestPlatformStaysWhereFilesAreTheGroups(t *testing.T) {
	platform := set(t, claims.Platform, "boot.variable b")
	next, err := claims.PlatformSuccessor(platform, uki(t))
	require.NoError(t, err)
	assert.True(t, next.Equal(platform))
}

func TestSuccessorByGRUBNamesWhatItCannotPredict(t *testing.T) {
	for name, c := range map[string]struct {
		base, files claims.Set
		want        string
	}{
		"a base with a finding": {grubBase(t, "loader.finding initrds were loaded twice"), grubFiles(t), "initrds were loaded twice"},
		"a base without GRUB":   {grubBase(t), grubFiles(t), "GRUB did not start the base boot"},
		"a kernel not signed":   {grubBase(t, "loader.kernel K1"), set(t, claims.Files, "kernel.image k2", "image.signature absent", "kernel.cmdline-text x", "loader.kernel K2"), "not signed"},
		"a root that is open":   {grubBase(t, "loader.kernel K1"), set(t, claims.Files, "kernel.cmdline-text /v root=/dev/vda1", "loader.kernel K2"), "could mount the root"},
		"another shim": {grubBase(t, "loader.kernel K1"), set(t, claims.Files, "boot.application shim2", "boot.application grub",
			"kernel.image k2", "image.signature present", "kernel.cmdline-text x", "loader.kernel K2"), "its first boot will show"},
		"a program more": {grubBase(t, "loader.kernel K1"), grubFiles(t, "boot.application tool"), "3 programs before the kernel"},
		"no programs": {grubBase(t, "loader.kernel K1"), set(t, claims.Files,
			"kernel.image k2", "image.signature present", "kernel.cmdline-text x", "loader.kernel K2"), "0 programs before the kernel"},
		"a kernel measured once": {set(t, claims.Measurement, "boot.application k1", "loader.kernel K1"), grubFiles(t), "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := claims.Successor(c.base, c.files)
			assert.ErrorContains(t, err, c.want)
		})
	}
	_, err := claims.PlatformSuccessor(set(t, claims.Measurement), grubFiles(t))
	assert.ErrorContains(t, err, "platform")
}
