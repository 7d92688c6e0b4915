package vm

import (
	"bytes"
	"crypto/aes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/xts"

	"keywright.dev/kms/secret"
)

func TestMachineRefuses(t *testing.T) {
	for why, m := range map[string]Machine{
		"one of a kernel, an ESP and a first disk": {},
		"SeaBIOS cannot boot an ESP":               {ESP: "esp"},
		"needs the path of its":                    {ESP: "esp", Firmware: OVMF},
		"SeaBIOS has none":                         {Kernel: "k", NVRAM: "nvram"},
		"70000 is no port":                         {Kernel: "k", Reach: []int{443, 70000}},
	} {
		_, err := m.Start(t.Context())
		assert.ErrorContains(t, err, why)
	}
}

func TestMachineArguments(t *testing.T) {
	m := Machine{
		ESP: "/a,b/esp", Firmware: OVMFSecureBoot, NVRAM: "/nv", Accel: TCG, TPM: &TPM{},
		Disks: []Disk{{Path: "/d0"}, {Path: "/d1", Snapshot: true, Serial: "data"}}, Reach: []int{8443},
		Clock: time.Date(2016, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	args := m.args()
	for _, want := range []string{
		"q35,smm=on",
		"if=none,id=esp,format=raw,cache=unsafe,snapshot=on,file=/a,,b/esp",
		"if=none,id=disk0,format=raw,cache=unsafe,snapshot=off,file=/d0",
		"virtio-blk-pci,drive=disk1,serial=data",
		"user,id=net,ipv6=off,restrict=on,host=10.0.2.1,guestfwd=tcp:10.0.2.2:8443-cmd:/bin/busybox nc 127.0.0.1 8443",
		"socket,id=swtpm,fd=4",
		"base=2016-01-01T00:00:00",
	} {
		assert.Contains(t, args, want)
	}
	assert.NotContains(t, args, "-kernel")
}

// TestTweakCountsSmallSectors checks the tweak of dm-crypt's plain64, which
// counts 512 bytes even where a sector has 4096.
func TestTweakCountsSmallSectors(t *testing.T) {
	cipher, err := xts.NewCipher(aes.NewCipher, bytes.Repeat([]byte{1, 2}, 32))
	require.NoError(t, err)
	plain := bytes.Repeat([]byte("0123456789abcdef"), 2*mib/16)
	for _, size := range []int{512, 4096} {
		var out bytes.Buffer
		require.NoError(t, encryptSectors(&out, bytes.NewReader(plain), cipher, size))
		require.Equal(t, len(plain), out.Len())
		const at = mib + 8192 // in the second MiB
		sector := out.Bytes()[at : at+size]
		cipher.Decrypt(sector, sector, at/512)
		assert.Equal(t, plain[:size], sector)
	}
}

func TestLUKSDiskRefuses(t *testing.T) {
	pass := secret.New([]byte("x"))
	for why, disk := range map[string]LUKSDisk{
		"at least 32 MiB":      {Size: 16 << 20, Passphrase: pass},
		"whole MiB":            {Size: 64<<20 + 512, Passphrase: pass},
		"want 512 or 4096":     {Size: 64 << 20, SectorSize: 1024, Passphrase: pass},
		"it has no passphrase": {Size: 64 << 20},
		"no folder of files":   {Size: 64 << 20, Passphrase: pass},
	} {
		assert.ErrorContains(t, disk.Write(t.Context(), t.TempDir()+"/disk"), why)
	}
}
