//go:build vm

package predict_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/attest"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/swtpm"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock/predict"
)

// TestPredictionIsWhatTheBootShows boots one image, predicts the boot of
// another from its file, boots that and compares.
func TestPredictionIsWhatTheBootShows(t *testing.T) {
	t.Run("Secure Boot off", func(t *testing.T) { comparePrediction(t, vm.OVMF, nil) })
	t.Run("Secure Boot", func(t *testing.T) {
		key, err := vm.SnakeoilKey(t.Context(), t.TempDir())
		require.NoError(t, err)
		comparePrediction(t, vm.OVMFSecureBoot, key)
	})
}

func comparePrediction(t *testing.T, firmware vm.Firmware, key *vm.SigningKey) {
	t.Helper()
	device := vmtest.NewTPM(t, "predict")
	first := vm.UKI{Cmdline: vm.DefaultCmdline, OSRelease: "ID=one\n", SignWith: key}
	second := vm.UKI{Cmdline: vm.DefaultCmdline + " keywright.test=two", OSRelease: "ID=two\n", SignWith: key}

	_, log := bootImage(t, firmware, device, first)
	base := appraise(t, log)
	assert.Equal(t, claims.Exact, base.Tier)

	path, log := bootImage(t, firmware, device, second)
	predicted, err := claims.Successor(base.Measurement, predictFile(t, path))
	require.NoError(t, err)
	assert.Empty(t, claims.Diff(predicted, appraise(t, log).Measurement))
	assert.NotEmpty(t, claims.Diff(base.Measurement, predicted))
}

// bootImage boots an image and returns its path and the boot's event log.
func bootImage(t *testing.T, firmware vm.Firmware, device *vm.TPM, uki vm.UKI) (path string, log []byte) {
	t.Helper()
	dir := t.TempDir()
	uki.Kernel, uki.Initrd = vmtest.Kernel(t), filepath.Join(dir, "initrd")
	script := "give events /sys/kernel/security/tpm0/binary_bios_measurements\n# " + uki.OSRelease
	require.NoError(t, vm.Initramfs{Kernel: uki.Kernel, Script: script}.Write(uki.Initrd))
	path = filepath.Join(dir, "uki.efi")
	require.NoError(t, uki.Write(t.Context(), path))
	esp := filepath.Join(dir, "esp")
	require.NoError(t, vm.WriteESP(t.Context(), esp, path))
	run := vmtest.Start(t, vm.Machine{
		Name: "predict", Firmware: firmware, NVRAM: filepath.Join(dir, "nvram"), TPM: device, ESP: esp,
	})
	log, err := run.Receive(t.Context(), "events")
	require.NoError(t, err)
	require.NoError(t, run.Wait(t.Context()))
	return path, log
}

func predictFile(t *testing.T, path string) claims.Set {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	info, err := file.Stat()
	require.NoError(t, err)
	set, err := predict.UKI(file, info.Size())
	require.NoError(t, err)
	return set
}

// appraise has a TPM that the log is replayed into vouch for it.
func appraise(t *testing.T, log []byte) attest.Boot {
	t.Helper()
	device := swtpm.New(t)
	require.NoError(t, device.Replay(log))
	identity, err := tpm.New(device).Identity(exchange.EKP256, "")
	require.NoError(t, err)
	defer func() { require.NoError(t, identity.Close()) }()
	said := sha256.Sum256([]byte("a statement"))
	quote, err := identity.Quote(said)
	require.NoError(t, err)
	quoted, err := attest.CheckQuote(attest.AK{Name: identity.AK().Name, Key: identity.AK().Key},
		attest.Quote{Attested: quote.Attest, Signature: quote.Signature, PCRs: quote.PCRs}, said)
	require.NoError(t, err)
	boot, err := attest.NewAppraiser(0).Appraise(quoted, log)
	require.NoError(t, err)
	return boot
}
