//go:build integration

package swtpm_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/swtpm"
)

func TestResetIsANewBoot(t *testing.T) {
	tpm := swtpm.New(t)
	require.NoError(t, tpm.Extend(0, sha256.Sum256([]byte("event"))))
	require.NotEqual(t, make([]byte, 32), readPCR(t, tpm, 0))
	before := resets(t, tpm)

	require.NoError(t, tpm.Reset())

	require.Equal(t, make([]byte, 32), readPCR(t, tpm, 0))
	require.Equal(t, before+1, resets(t, tpm))
}

func TestReplayGivesThePCRsOfTheRecordedBoot(t *testing.T) {
	tpm := swtpm.New(t)
	log, err := os.ReadFile(filepath.Join("testdata", "grub.bin"))
	require.NoError(t, err)
	require.NoError(t, tpm.Replay(log))

	for pcr, want := range recordedPCRs(t) {
		require.Equal(t, want, hex.EncodeToString(readPCR(t, tpm, pcr)), "PCR %d", pcr)
	}
}

func TestReplayRefusesWhatIsNoLog(t *testing.T) {
	tpm := swtpm.New(t)
	require.Error(t, tpm.Replay(nil))
	require.Error(t, tpm.Replay([]byte("not an event log")))
}

func TestManufacture(t *testing.T) {
	ca, err := swtpm.NewCA(t.TempDir())
	require.NoError(t, err)
	swtpm.NewCertified(t, ca)

	root, err := ca.Root()
	require.NoError(t, err)
	intermediate, err := ca.Intermediate()
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err = intermediate.Verify(x509.VerifyOptions{Roots: roots})
	require.NoError(t, err)
}

func TestRestartKeepsTheState(t *testing.T) {
	tpm := swtpm.New(t)
	before := resets(t, tpm)
	require.NoError(t, tpm.Restart())
	require.Greater(t, resets(t, tpm), before)
}

// recordedPCRs returns what the recorded guest read, without PCR 10, which the
// kernel extends and the firmware's log does not hold.
func recordedPCRs(t *testing.T) map[uint]string {
	text, err := os.ReadFile(filepath.Join("testdata", "grub.json"))
	require.NoError(t, err)
	var recorded struct {
		PCR map[uint]string `json:"pcr"`
	}
	require.NoError(t, json.Unmarshal(text, &recorded))
	require.Contains(t, recorded.PCR, uint(4))
	delete(recorded.PCR, 10)
	return recorded.PCR
}

func readPCR(t *testing.T, tpm *swtpm.TPM, pcr uint) []byte {
	rsp, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcr),
	}}}}.Execute(tpm)
	require.NoError(t, err)
	require.Len(t, rsp.PCRValues.Digests, 1)
	return rsp.PCRValues.Digests[0].Buffer
}

func resets(t *testing.T, tpm *swtpm.TPM) uint32 {
	rsp, err := tpm2.ReadClock{}.Execute(tpm)
	require.NoError(t, err)
	return rsp.CurrentTime.ClockInfo.ResetCount
}
