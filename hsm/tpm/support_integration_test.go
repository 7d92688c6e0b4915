//go:build integration

package tpm_test

import (
	"crypto/rand"
	"encoding/binary"
	"flag"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/swtpm"
)

// devicePath lets the tests named TestDevice… run on a real TPM.
var devicePath = flag.String("tpm", "", "run TestDevice… on this device, such as /dev/tpmrm0, instead of a new swtpm")

// open returns the TPM under test.
func open(tb testing.TB) *tpm.Device {
	tb.Helper()
	if *devicePath == "" {
		return tpm.New(swtpm.New(tb))
	}
	device, err := tpm.Open(*devicePath)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, device.Close()) })
	return device
}

func identify(tb testing.TB, device *tpm.Device, template exchange.EKTemplate) *tpm.Identity {
	tb.Helper()
	id, err := device.Identity(template, "")
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, id.Close()) })
	return id
}

func newSecret(tb testing.TB) secret.Bytes {
	tb.Helper()
	s, err := secret.Random(rand.Reader, exchange.CredentialSize)
	require.NoError(tb, err)
	return s
}

// loaded returns the handles of transient objects and sessions in the TPM.
func loaded(tb testing.TB, t transport.TPM) []tpm2.TPMHandle {
	tb.Helper()
	var all []tpm2.TPMHandle
	for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(t)
		require.NoError(tb, err)
		handles, err := rsp.CapabilityData.Data.Handles()
		require.NoError(tb, err)
		all = append(all, handles.Handle...)
	}
	return all
}

// interposer sits between processor and TPM.
type interposer struct {
	transport.TPM

	mu   sync.Mutex
	wire [][]byte
	// forge, if set, may answer a command itself; nil lets it pass.
	forge func(command []byte) []byte
	// alter, if set, may change a response in place.
	alter func(command, response []byte)
}

func (i *interposer) Send(command []byte) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.forge != nil {
		if response := i.forge(command); response != nil {
			return response, nil
		}
	}
	response, err := i.TPM.Send(command)
	if err == nil && i.alter != nil {
		i.alter(command, response)
	}
	i.wire = append(i.wire, command, response)
	return response, err
}

func commandCode(command []byte) tpm2.TPMCC {
	return tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
}

// refusal is a response that holds a code alone.
func refusal(code tpm2.TPMRC) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(code))
}
