//go:build integration

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm"
	"keywright.dev/unlock"
)

// efiStub is the image that images are built with, and stands in for a kernel:
// it is a program for EFI like any other.
const efiStub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// image writes a unified kernel image that never booted.
func (g *guest) image(path string) string {
	g.t.Helper()
	require.NoError(g.t, os.MkdirAll(filepath.Dir(path), 0o700))
	initrd := g.path("initrd")
	require.NoError(g.t, os.WriteFile(initrd, []byte("an initrd"), 0o600))
	uki := vm.UKI{Kernel: vm.Kernel{Image: efiStub, Modules: "/lib/modules/6.1.0"}, Initrd: initrd, Cmdline: "quiet", OSRelease: "ID=test"}
	require.NoError(g.t, uki.Write(g.t.Context(), path))
	return path
}

// What is approved is the boot of the announced image, not the present one.
func TestAnnouncedImageIsWhatIsApproved(t *testing.T) {
	for name, args := range map[string]func(*guest) []string{
		"named":    func(g *guest) []string { return []string{"--uki", g.image(g.path("next.efi"))} },
		"found":    func(g *guest) []string { g.image(g.path("esp/EFI/Linux/next.efi")); return nil },
		"fallback": func(g *guest) []string { g.image(g.path("esp/EFI/BOOT/BOOTX64.EFI")); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, g := startService(t), newGuest(t, 1)
			out := g.enroll(s, args(g)...)
			assert.Regexp(t, `measurement  [0-9a-f]{64} \(from \S+\.(efi|EFI)\)`, out)
			s.approve(t, g.machine())
			g.boot("ovmf-uki")
			g.refusedWith(g.bootHere(s, "--deadline", "1ms"), "KW-1203")
		})
	}
}

// An image that somebody left on the partition of a machine that boots otherwise
// keeps no machine from enrolling.
func TestImageThatDidNotBootIsNoPrediction(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	g.boot("grub-a")
	g.image(g.path("esp/EFI/Linux/left.efi"))
	out := g.enroll(s)
	assert.Contains(t, out, "note: the service cannot lay")
	assert.Contains(t, out, "(from this boot's measurement)")

	named := g.fails(unlock.ExitRefused, passphrase, append(g.enrollArgs(s), "--uki", g.path("esp/EFI/Linux/left.efi"))...)
	assert.Contains(t, named, "KW-1203")
	s.approve(t, g.machine())
	g.boot("grub-a")
	require.NoError(t, g.bootHere(s).err)
}

func TestImagesThatPredictNothing(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	require.NoError(t, os.MkdirAll(g.path("esp/EFI/Linux"), 0o700))
	junk := g.path("esp/EFI/Linux/junk.efi")
	require.NoError(t, os.WriteFile(junk, []byte("MZ no image"), 0o600))
	before := g.headers()
	assert.Contains(t, g.fails(unlock.ExitFailed, passphrase, append(g.enrollArgs(s), "--uki", junk)...), "predicting the next boot from "+junk)
	assert.True(t, bytes.Equal(before, g.headers()), "nothing was changed")
	out := g.enroll(s)
	assert.Contains(t, out, "(from this boot's measurement)")
	assert.Contains(t, out, "note: predicting the next boot from "+junk)
	g.image(g.path("esp/EFI/Linux/a.efi"))
	out = g.enroll(s)
	assert.Contains(t, out, "(from this boot's measurement)", "of two nobody knows which is next")
	assert.Contains(t, out, "name that of the next boot with --uki")
}
