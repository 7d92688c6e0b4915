//go:build vm && full

package debian_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/debian"
	"keywright.dev/test/process"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

const kernelPackage = "/root/kernel.deb"

// TestKernelUpgradeBootsUnattended has two servers of one group upgrade their
// kernels: what is the group's is approved once, before the first of them
// restarts, and what is a server's own it stages itself. The kernel from before
// still boots, and an initrd that was edited offline does not.
func TestKernelUpgradeBootsUnattended(t *testing.T) {
	first := newSite(t)
	second := &site{service: first.service, machine: first.another(t, "other"), mapping: first.mapping}
	running := make(map[*site]*debian.Guest)
	for name, s := range map[string]*site{"web-1": first, "web-2": second} {
		s.giveKernel(t)
		g := s.bootByPassphrase(t)
		s.enrollAs(t, g, name)
		powerOff(t, g)
		s.approveAs(t, name)
		running[s] = s.upAgain(t)
	}
	before := kernelOf(t, running[first])

	printed := upgrade(t, running[first])
	digest := regexp.MustCompile(`W: keywright-unlock: before it, an operator approves: keywright measurement approve ([0-9a-f]{64})`).FindStringSubmatch(printed)
	require.Len(t, digest, 2, printed)
	first.foretold(t, "web-1:no", "web-2:yes")
	_, err := running[first].Command(t.Context(), "keywright-unlock preflight")
	require.ErrorContains(t, err, "next boot: no: measurement")

	_, err = first.service.Operate(t.Context(), "measurement", "approve", digest[1])
	require.NoError(t, err)
	printed = upgrade(t, running[second])
	assert.NotContains(t, printed, "W: keywright-unlock", "it was approved for the group")
	first.foretold(t, "web-1:yes", "web-2:yes")
	var g *debian.Guest
	for _, s := range []*site{second, first} {
		assert.Contains(t, command(t, running[s], "keywright-unlock preflight"), "next boot: yes")
		powerOff(t, running[s])
		g = s.upAgain(t)
		assert.NotEqual(t, before, kernelOf(t, g))
		if s == second {
			powerOff(t, g)
		}
	}

	// GRUB is asked for the kernel from before, as a person at its menu would.
	after := kernelOf(t, g)
	command(t, g, `grub-reboot "$(sed -n "s/^submenu .* '\(gnulinux-advanced-[^']*\)'.*/\1/p" /boot/grub/grub.cfg)>$(sed -n "s/.* '\(gnulinux-`+before+`-advanced-[^']*\)'.*/\1/p" /boot/grub/grub.cfg)"`)
	powerOff(t, g)
	g = first.upAgain(t)
	assert.Equal(t, before, kernelOf(t, g))
	powerOff(t, g)

	first.editInitrd(t, after)
	g = first.bootByPassphrase(t)
	assert.Contains(t, g.Log(), "keywright KW-1204 refused")
	explained, err := first.service.Operate(t.Context(), "explain", "machine/web-1")
	require.NoError(t, err)
	assert.Contains(t, explained, "loader.initrd")
	powerOff(t, g)
}

// enrolled boots the server once it is enrolled and approved.
func (s *site) enrolled(t *testing.T) *debian.Guest {
	t.Helper()
	g := s.bootByPassphrase(t)
	s.enroll(t, g)
	powerOff(t, g)
	s.approve(t)
	return s.upAgain(t)
}

// upAgain boots the server, at which nobody sits, and waits until it is up.
func (s *site) upAgain(t *testing.T) *debian.Guest {
	t.Helper()
	g := s.bootUnattended(t)
	require.NoError(t, g.Login(t.Context()))
	return g
}

func kernelOf(t *testing.T, g *debian.Guest) string {
	t.Helper()
	return strings.TrimSpace(command(t, g, "uname -r"))
}

// another installs a second server at the site's service.
func (s *site) another(t *testing.T, name string) debian.Machine {
	t.Helper()
	dir := t.TempDir()
	m := debian.Machine{
		Name: name, Dir: dir, TPM: vmtest.NewTPM(t, name),
		Disk: filepath.Join(dir, "disk"), Data: []string{filepath.Join(dir, "archive")},
	}
	require.NoError(t, debian.Plain.WriteDisk(t.Context(), m.Disk))
	archive, err := os.ReadFile(s.machine.Data[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(m.Data[0], archive, 0o600)) // each QEMU locks its own
	return m
}

// giveKernel has the server find the kernel's package on a further disk.
func (s *site) giveKernel(t *testing.T) {
	t.Helper()
	path, err := debian.Upgrade()
	require.NoError(t, err)
	kernel, err := os.ReadFile(path)
	require.NoError(t, err)
	disk := filepath.Join(s.machine.Dir, "kernel")
	require.NoError(t, debian.WriteArchive(disk, vm.File{Path: kernelPackage, Mode: 0o644, Content: kernel}))
	s.machine.Data = append(s.machine.Data, disk)
}

// upgrade installs it, and returns what that printed.
func upgrade(t *testing.T, g *debian.Guest) string {
	t.Helper()
	return command(t, g, "tar -x -f /dev/vdc -C / && dpkg -i "+kernelPackage)
}

// foretold holds what the service expects of the servers' next boots, and that
// the gate for maintenance goes by it.
func (s *site) foretold(t *testing.T, want ...string) {
	t.Helper()
	list, err := s.service.Operate(t.Context(), "machine", "list")
	require.NoError(t, err)
	fails := false
	for _, each := range want {
		name, verdict, _ := strings.Cut(each, ":")
		assert.Regexp(t, `(?m)^`+name+` .* `+verdict+`(:|$)`, list)
		fails = fails || verdict != "yes"
	}
	_, err = s.service.Operate(t.Context(), "machine", "list", "--next-boot=fail")
	if fails {
		require.Error(t, err)
	} else {
		require.NoError(t, err)
	}
}

// editInitrd appends to a file of the machine's boot partition what changes nothing
// but its digest, as somebody who has the disk could.
func (s *site) editInitrd(t *testing.T, kernel string) {
	t.Helper()
	ctx, disk := t.Context(), s.machine.Disk
	table, err := exec.CommandContext(ctx, "sfdisk", "--dump", disk).Output()
	require.NoError(t, err)
	start := regexp.MustCompile(`2 : start= *(\d+)`).FindSubmatch(table)
	require.Len(t, start, 2)
	sector, err := strconv.Atoi(string(start[1]))
	require.NoError(t, err)
	image, path := fmt.Sprintf("%s?offset=%d", disk, sector*512), filepath.Join(t.TempDir(), "initrd")
	debugfs := func(write bool, request string) {
		args := []string{"-R", request, image}
		if write {
			args = append([]string{"-w"}, args...)
		}
		require.NoError(t, process.Run(ctx, exec.CommandContext(ctx, "debugfs", args...)))
	}
	debugfs(false, "dump /initrd.img-"+kernel+" "+path)
	require.NoError(t, process.Run(ctx, exec.CommandContext(ctx, "truncate", "--size=+512", path)))
	debugfs(true, "rm /initrd.img-"+kernel)
	debugfs(true, "write "+path+" initrd.img-"+kernel)
}
