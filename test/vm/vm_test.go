//go:build vm

package vm_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// printPCRs makes a guest print a line for each PCR of a policy.
const printPCRs = `
for i in 0 1 2 3 4 5 6 7 8 9 11 12 13 14 15; do
	echo "pcr $i $(cat /sys/class/tpm/tpm0/pcr-sha256/$i)"
done
echo "pcrs done"
`

// TestTinyGuest boots once with SeaBIOS and uses all that a guest has: TPM,
// network, a LUKS disk made by the host, the console's input; then its power
// is cut.
func TestTinyGuest(t *testing.T) {
	dir := t.TempDir()
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "host answers %s\n", r.URL.Path)
	}))
	defer host.Close()
	hidden := httptest.NewServer(http.NotFoundHandler())
	defer hidden.Close()
	passphrase := secret.New([]byte("correct horse battery"))
	disk := makeDisk(t, dir, passphrase)

	initrd := filepath.Join(dir, "initrd")
	require.NoError(t, vm.Initramfs{
		Kernel:   vmtest.Kernel(t),
		Programs: vm.Cryptsetup(),
		Script: printPCRs + fmt.Sprintf(`
wget -q -O - http://10.0.2.2:%[1]d/one
wget -q -O - http://10.0.2.2:%[1]d/two
nc -w 3 10.0.2.2 %[2]d </dev/null || echo "hidden port refused"
cryptsetup open /dev/vda data && mount /dev/mapper/data /mnt && cat /mnt/etc/motto
echo left by the guest >/mnt/note && sync && echo "note written"
carrier() { until [ "$(cat /sys/class/net/eth0/carrier)" = $1 ]; do sleep 1; done; echo "carrier $1"; }
carrier 0
carrier 1
nc -w 3 10.0.2.2 %[1]d </dev/null || echo "all is silent"
until wget -q -O - http://10.0.2.2:%[1]d/three; do sleep 1; done
read -r line </dev/tty0 && echo "typed $line"
sleep 1000
`, port(host), port(hidden)),
	}.Write(initrd))

	run := vmtest.Start(t, vm.Machine{
		Name: "tiny", Kernel: vmtest.Kernel(t).Image, Initrd: initrd,
		TPM: vmtest.NewTPM(t, "tiny"), Disks: []vm.Disk{{Path: disk}}, Reach: []int{port(host)},
	})
	assert.Len(t, readPCRs(t, run), 15)
	vmtest.Expect(t, run, "host answers /one")
	vmtest.Expect(t, run, "host answers /two")
	vmtest.Expect(t, run, "hidden port refused")
	require.NoError(t, run.Answer(t.Context(), "Enter passphrase for /dev/vda: ", passphrase))
	vmtest.Expect(t, run, "keep calm and rotate")
	vmtest.Expect(t, run, "note written")
	require.NoError(t, run.SetNetwork(t.Context(), vm.NetworkUnplugged))
	vmtest.Expect(t, run, "carrier 0")
	require.NoError(t, run.SetNetwork(t.Context(), vm.NetworkSilent))
	vmtest.Expect(t, run, "carrier 1")
	vmtest.Expect(t, run, "all is silent")
	require.NoError(t, run.SetNetwork(t.Context(), vm.NetworkUp))
	vmtest.Expect(t, run, "host answers /three")
	require.NoError(t, run.Press(t.Context(), []byte("open up\n")))
	vmtest.Expect(t, run, "typed open up")
	run.Kill()
	require.NoError(t, run.Wait(t.Context()))
	_, err := run.Expect(t.Context(), "the script ended")
	require.ErrorIs(t, err, vm.ErrEnded)
	assert.ErrorContains(t, err, "note written", "an error shows the console's last lines")
}

// TestUKIBootsAlike boots a UKI twice from NVRAM that has booted before.
func TestUKIBootsAlike(t *testing.T) {
	dir := t.TempDir()
	tpm := vmtest.NewTPM(t, "uki")
	machine := vm.Machine{
		Name: "uki", Firmware: vm.OVMF, NVRAM: filepath.Join(dir, "nvram"), TPM: tpm,
		ESP: makeESP(t, dir, vm.UKI{Cmdline: vm.DefaultCmdline, OSRelease: "ID=keywright-test\n"}),
	}
	first, events := bootUKI(t, machine)
	// The logs differ: they tell where images were loaded, which no digest covers.
	second, _ := bootUKI(t, machine)
	assert.Equal(t, first, second)
	assert.NotEqual(t, strings.Repeat("0", 64), first["11"], "the stub measures the UKI's sections")
	record(t, first, events)
}

func bootUKI(t *testing.T, machine vm.Machine) (pcrs map[string]string, events []byte) {
	t.Helper()
	began := time.Now()
	run := vmtest.Start(t, machine)
	pcrs = readPCRs(t, run)
	t.Logf("booted in %s", time.Since(began).Round(100*time.Millisecond))
	events, err := run.Receive(t.Context(), "events")
	require.NoError(t, err)
	vmtest.Expect(t, run, "last words")
	vmtest.Expect(t, run, "guest: the script ended with 0")
	require.NoError(t, run.Wait(t.Context()))
	return pcrs, events
}

// lastWords are more than a UART has sent when the script that prints them ends.
const lastWords = `
head -c 3500 /dev/zero | tr '\0' .
echo
echo "last words"
`

// makeESP builds an ESP around the UKI, whose guest reports PCRs and events.
func makeESP(t *testing.T, dir string, uki vm.UKI) string {
	t.Helper()
	uki.Kernel, uki.Initrd = vmtest.Kernel(t), filepath.Join(dir, "uki-initrd")
	require.NoError(t, vm.Initramfs{
		Kernel: uki.Kernel,
		Script: printPCRs + "give events /sys/kernel/security/tpm0/binary_bios_measurements\n" + lastWords,
	}.Write(uki.Initrd))
	require.NoError(t, uki.Write(t.Context(), filepath.Join(dir, "uki.efi")))
	esp := filepath.Join(dir, "esp")
	require.NoError(t, vm.WriteESP(t.Context(), esp, filepath.Join(dir, "uki.efi")))
	return esp
}

func makeDisk(t *testing.T, dir string, passphrase secret.Bytes) string {
	t.Helper()
	root := filepath.Join(dir, "root")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc", "motto"), []byte("keep calm and rotate\n"), 0o644))
	disk := filepath.Join(dir, "disk")
	require.NoError(t, vm.LUKSDisk{Size: 64 << 20, Passphrase: passphrase, Root: root}.Write(t.Context(), disk))
	return disk
}

func readPCRs(t *testing.T, run *vm.Run) map[string]string {
	t.Helper()
	pcrs := map[string]string{}
	for {
		line := vmtest.Expect(t, run, "pcr ", "pcrs done")
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return pcrs
		}
		pcrs[fields[1]] = fields[2]
	}
}

func port(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }

// record keeps what the boot showed where KEYWRIGHT_VM_RECORD names a folder,
// for those who want a fixture.
func record(t *testing.T, pcrs map[string]string, events []byte) {
	t.Helper()
	dir := os.Getenv("KEYWRIGHT_VM_RECORD")
	if dir == "" {
		return
	}
	var text strings.Builder
	for _, i := range strings.Fields("0 1 2 3 4 5 6 7 8 9 11 12 13 14 15") {
		fmt.Fprintln(&text, i, pcrs[i])
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ovmf-uki.pcrs"), []byte(text.String()), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ovmf-uki.events"), events, 0o644))
}
