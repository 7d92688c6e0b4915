package tpm_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
)

func TestReadEventLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, make([]byte, tpm.MaxEventLog), 0o600))
	log, err := tpm.ReadEventLog(path)
	require.NoError(t, err)
	require.Len(t, log, tpm.MaxEventLog)

	require.NoError(t, os.WriteFile(path, make([]byte, tpm.MaxEventLog+1), 0o600))
	_, err = tpm.ReadEventLog(path)
	require.ErrorContains(t, err, "more than 4194304 bytes")

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = tpm.ReadEventLog(path)
	require.ErrorContains(t, err, "is empty")

	_, err = tpm.ReadEventLog(filepath.Dir(path))
	require.ErrorContains(t, err, "reading the event log")
}

func TestNoEventLog(t *testing.T) {
	_, err := tpm.ReadEventLog(filepath.Join(t.TempDir(), "log"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "securityfs")
}
