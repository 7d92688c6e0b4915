//go:build integration

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock"
)

// TestPinnedCAVouchesForItsTPMs pins the CA of one software TPM: that machine is
// approved without a hash to compare, one with a TPM of another CA is not.
func TestPinnedCAVouchesForItsTPMs(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	programs, err := e2e.Build(ctx, dir)
	require.NoError(t, err)
	ours, stranger := vmtest.NewTPM(t, "ours"), vmtest.NewTPM(t, "stranger")
	service, err := e2e.ServiceConfig{Program: programs.Service, Dir: dir, EKRoots: ours.CACertificates()}.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(service.Stop)
	for _, device := range []*vm.TPM{ours, stranger} {
		enrollOnHost(t, service, device)
	}

	approved, err := service.Operate(ctx, "machine", "approve", "ours")
	require.NoError(t, err)
	assert.Contains(t, approved, "machine/ours is active")
	_, err = service.Operate(ctx, "machine", "approve", "stranger")
	require.ErrorContains(t, err, "nobody vouches for its TPM")
	ek, err := stranger.EK()
	require.NoError(t, err)
	approved, err = service.Operate(ctx, "machine", "approve", "stranger", "--ek-hash", ek.MachineID())
	require.NoError(t, err)
	assert.Contains(t, approved, "machine/stranger is active")
}

// enrollOnHost enrols a machine that is a software TPM with a recorded boot and
// a disk image, under the name of its TPM.
func enrollOnHost(t *testing.T, service *e2e.Service, device *vm.TPM) {
	t.Helper()
	dir, passphrase := t.TempDir(), secret.New([]byte("typed by the installer"))
	disk := filepath.Join(dir, "disk")
	require.NoError(t, vm.LUKSDisk{Size: 32 << 20, Passphrase: passphrase, Root: t.TempDir()}.Write(t.Context(), disk))
	log := filepath.Join("..", "..", "kms", "attest", "testdata", "eventlogs", "ovmf-uki.bin")
	client, err := api.NewGuestClient(fmt.Sprintf("https://127.0.0.1:%d", service.Port()), nil)
	require.NoError(t, err)
	defer client.Close()
	pin, err := exchange.ParseFingerprint(service.Key)
	require.NoError(t, err)
	config := unlock.Config{Servers: []string{service.URL}, ServiceKeys: []string{service.Key}}
	_, err = (&unlock.Enrollment{
		TPM: bootRecorded(t, device, log), EventLog: log, Pins: [][32]byte{pin},
		Servers: []unlock.EnrollServer{{Host: "the service", Enroller: client, Committer: client}},
		Name:    device.Name(), Devices: []unlock.Device{{Path: disk}}, Passphrase: constant(passphrase),
		Config: config, ConfigPath: filepath.Join(dir, "unlock.toml"), RunDir: unlock.RunDir(dir), Out: io.Discard,
	}).Run(t.Context())
	require.NoError(t, err)
}

// bootRecorded has the TPM measure a recorded boot.
func bootRecorded(t *testing.T, device *vm.TPM, log string) *tpm.Identity {
	t.Helper()
	events, err := os.ReadFile(log)
	require.NoError(t, err)
	powered := vmtest.PowerOn(t, device)
	require.NoError(t, powered.Replay(events))
	template, err := tpm.New(powered).ChooseTemplate()
	require.NoError(t, err)
	identity, err := tpm.New(powered).Identity(template, "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, identity.Close()) })
	return identity
}

// constant answers every question for a passphrase; the enrolment wipes what it
// is given.
func constant(passphrase secret.Bytes) func(context.Context, string) (secret.Bytes, error) {
	return func(context.Context, string) (secret.Bytes, error) { return secret.Copy(passphrase.Expose()), nil }
}
