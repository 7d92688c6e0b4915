package tpm

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sendFunc is a TPM made of a function.
type sendFunc func(command []byte) ([]byte, error)

func (f sendFunc) Send(command []byte) ([]byte, error) { return f(command) }

// refusal is a response that holds a code alone.
func refusal(code tpm2.TPMRC) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(code))
}

func TestPatienceEnds(t *testing.T) {
	var slept []time.Duration
	sent := 0
	busy := sendFunc(func([]byte) ([]byte, error) { sent++; return refusal(tpm2.TPMRCRetry), nil })
	p := patient{busy, func(d time.Duration) { slept = append(slept, d) }}
	response, err := p.Send(nil)
	require.NoError(t, err)
	assert.Equal(t, refusal(tpm2.TPMRCRetry), response)
	assert.Equal(t, retries, sent)
	assert.Equal(t, time.Millisecond, slept[0])
	assert.Equal(t, 2048*time.Millisecond, slept[len(slept)-1])
}

func TestPatienceIsForTheBusyOnly(t *testing.T) {
	failure := errors.New("the wire broke")
	for name, tpm := range map[string]sendFunc{
		"success":     func([]byte) ([]byte, error) { return refusal(tpm2.TPMRCSuccess), nil },
		"refusal":     func([]byte) ([]byte, error) { return refusal(tpm2.TPMRCLockout), nil },
		"no response": func([]byte) ([]byte, error) { return nil, nil },
		"failure":     func([]byte) ([]byte, error) { return nil, failure },
	} {
		p := patient{tpm, func(time.Duration) { t.Error("slept") }}
		_, err := p.Send(nil)
		assert.Equal(t, name == "failure", err != nil, name)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "tpmrm0"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "this machine has no TPM 2.0")

	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = Open(path)
	require.ErrorContains(t, err, "is not a character device")
}

func TestDeviceFile(t *testing.T) {
	f, err := openFile("/dev/null")
	require.NoError(t, err)
	_, err = f.Send([]byte("command"))
	require.ErrorContains(t, err, "reading a response of the TPM")
	require.NoError(t, f.Close())
	_, err = f.Send([]byte("command"))
	require.ErrorContains(t, err, "sending a command to the TPM")
}

func TestAdvice(t *testing.T) {
	for code, advice := range map[tpm2.TPMRC]string{
		tpm2.TPMRCFailure:        "self-test",
		tpm2.TPMRCInitialize:     "firmware did not start",
		tpm2.TPMRCLockout:        "lockout",
		tpm2.TPMRCHierarchy:      "hierarchy is disabled",
		tpm2.TPMRCObjectMemory:   "/dev/tpmrm0",
		tpm2.TPMRCSessionHandles: "/dev/tpmrm0",
	} {
		device := New(sendFunc(func([]byte) ([]byte, error) { return refusal(code), nil }))
		_, err := device.Identity("rsa-2048", "")
		assert.ErrorContains(t, err, advice)
		assert.ErrorIs(t, err, code)
		assert.ErrorContains(t, err, "creating the endorsement key rsa-2048: ")
	}
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail} {
		assert.ErrorContains(t, explainEndorsement("trying", code), "tpm2_changeauth")
	}
	assert.NoError(t, explain("trying", nil))
	assert.NoError(t, explainEndorsement("trying", nil))
}
