//go:build vm && full

package debian_test

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/test/debian"
)

const (
	// prepareAttacks makes a thief's volume group of the name of the machine's own
	// on the third disk, gives time to edit GRUB's entry, and tells what to aim at:
	// the lines of the entry before its kernel, and the sector where the root file
	// system begins.
	prepareAttacks = `(set -e
pvcreate -q /dev/vdd >/dev/null
vgcreate -q thief /dev/vdd >/dev/null
lvcreate -q -n swap_1 -L 8m thief >/dev/null
lvcreate -q -n root -l 100%FREE thief >/dev/null
mkswap -q /dev/thief/swap_1
mkfs.ext4 -q /dev/thief/root
mount /dev/thief/root /mnt
mkdir /mnt/sbin
printf '#!/bin/sh\necho a thief is here\n' >/mnt/sbin/init
chmod +x /mnt/sbin/init
umount /mnt
vgchange -q -an thief >/dev/null
# In the sight of the disk alone, and of no folder of the machine's own group.
mv /dev/debian-vg /dev/aside
vgrename -q --config 'devices{filter=["a|^/dev/vdd$|","r|.*|"]}' thief debian-vg >/dev/null
mv /dev/aside /dev/debian-vg
sed -i 's/set timeout=1$/set timeout=20/' /boot/grub/grub.cfg
awk '/^menuentry/ { entry = NR } /^\tlinux/ { print NR - entry; exit }' /boot/grub/grub.cfg
echo $(($(cat /sys/class/block/vda3/start) + $(dmsetup table vda3_crypt | cut -d ' ' -f 8) + $(dmsetup table debian--vg-root | cut -d ' ' -f 5))))`

	ctrlE, ctrlN, ctrlX = "\x05", "\x0e", "\x18"
)

// TestAttack16And25OnDebian has a thief who holds the approved machine: its disks
// and its console. He has the passphrase once.
func TestAttack16And25OnDebian(t *testing.T) {
	s := newLVMSite(t)
	s.addDisk(t, "thief-disk")
	printed, _ := s.enrollBoth(t, prepareAttacks)
	prepared := strings.Fields(printed)
	require.Len(t, prepared, 2, printed)
	lines, err := strconv.Atoi(prepared[0])
	require.NoError(t, err)
	rootSector, err := strconv.ParseInt(prepared[1], 10, 64)
	require.NoError(t, err)
	thief := s.machine.Data[2]
	s.machine.Data = s.machine.Data[:2]

	// Row 16: the command line is edited in GRUB's menu. The boot is refused, and
	// neither shell that it asks for can ask for keys.
	t.Run("edited command line", func(t *testing.T) {
		g := boot(t, s.machine, s.service.Port())
		require.NoError(t, g.Prompt(t.Context(), "executed automatically in"))
		enter(t, g, "e")
		require.NoError(t, g.Prompt(t.Context(), "Emacs-like screen editing"))
		// A line with the entry's name and an empty one stand above.
		enter(t, g, strings.Repeat(ctrlN, lines+1)+ctrlE+" break=bottom init=/bin/sh"+ctrlX)
		_, err := g.Expect(t.Context(), "keywright KW-1203 refused")
		require.NoError(t, err)
		require.NoError(t, g.Answer(t.Context(), "Please unlock disk vda3_crypt: ", debian.Passphrase()))
		require.NoError(t, g.Prompt(t.Context(), "(initramfs) "))
		assertSpent(t, g)
		assertClosed(t, g)
		enter(t, g, "exit\n")
		require.NoError(t, g.Prompt(t.Context(), "# "))
		assertSpent(t, g)
		assertClosed(t, g)
		enter(t, g, "mount -o remount,rw /; mv /sbin/init /sbin/away; mount -o remount,ro /; echo init is 'away'\n")
		_, err = g.Expect(t.Context(), "init is away")
		require.NoError(t, err)
		g.Kill()
		assert.NotContains(t, g.Log(), "keywright: opened")
	})

	// Row 16: where the root has no init, initramfs-tools would go on with the
	// root's own shell.
	t.Run("no init", func(t *testing.T) {
		g := s.bootUnattended(t)
		refused, err := g.Expect(t.Context(), "resetting the machine", "requested /sbin/init")
		require.NoError(t, err)
		assert.Contains(t, refused, "KW-1406")
		require.NoError(t, g.Wait(t.Context()), "it is reset")
		assert.NotContains(t, g.Log(), "# ")
	})

	// Row 25: the keys come, and the root is found on a disk in the clear.
	t.Run("volume group of the same name", func(t *testing.T) {
		m := s.machine
		m.Data = append(m.Data[:2:2], thief)
		g := boot(t, m, s.service.Port())
		_, err := g.Expect(t.Context(), "keywright: opened")
		require.NoError(t, err)
		refused, err := g.Expect(t.Context(), "resetting the machine", "a thief is here")
		require.NoError(t, err)
		assert.Contains(t, refused, "KW-1407")
		require.NoError(t, g.Wait(t.Context()), "it is reset")
		assert.Contains(t, g.Log(), "resuming from /dev/mapper/debian--vg-swap_1", "his image is none to resume")
		assert.NotContains(t, g.Log(), "a thief is here")
	})

	// Row 16: the root's first blocks are overwritten, so that the approved
	// initramfs ends at a shell. What the keys opened is closed by then.
	t.Run("spoiled root", func(t *testing.T) {
		spoil(t, s.machine.Disk, rootSector*512)
		g := s.bootUnattended(t)
		require.NoError(t, g.Prompt(t.Context(), "(initramfs) "))
		assert.NotContains(t, g.Log(), "resuming from", "the machine's own swap was looked at")
		assertSpent(t, g)
		enter(t, g, "echo mappings: $(ls /dev/mapper)\n")
		_, err := g.Expect(t.Context(), "mappings: control")
		require.NoError(t, err)
		enter(t, g, "dmsetup ls\n")
		_, err = g.Expect(t.Context(), "No devices found")
		require.NoError(t, err)
		g.Kill()
	})
}

// enter types as it is.
func enter(t *testing.T, g *debian.Guest, text string) {
	t.Helper()
	require.NoError(t, g.Send([]byte(text)))
}

// assertSpent asks for keys in a shell.
func assertSpent(t *testing.T, g *debian.Guest) {
	t.Helper()
	enter(t, g, "keywright-unlock boot --deadline 1s\n")
	_, err := g.Expect(t.Context(), "keywright KW-1404 spent")
	require.NoError(t, err)
}

// assertClosed holds in a shell that PCR 15 says that nothing was released.
func assertClosed(t *testing.T, g *debian.Guest) {
	t.Helper()
	closed := exchange.Extend([32]byte{}, exchange.NoReleaseEvent())
	enter(t, g, "cat /sys/class/tpm/tpm0/pcr-sha256/15\n")
	_, err := g.Expect(t.Context(), strings.ToUpper(hex.EncodeToString(closed[:])))
	require.NoError(t, err)
}

// spoil overwrites the ciphertext of a superblock.
func spoil(t *testing.T, disk string, offset int64) {
	t.Helper()
	noise := make([]byte, 8<<10)
	_, _ = rand.Read(noise) // never fails
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(noise, offset)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
