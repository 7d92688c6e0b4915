package predict

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/eventlog"
)

// recorded are the event logs of real boots.
const recorded = "../../kms/attest/testdata/eventlogs/*.bin"

// applications returns the data of a log's events about programs.
func applications(t testing.TB, path string) [][]byte {
	t.Helper()
	log, err := os.ReadFile(path)
	require.NoError(t, err)
	events, err := eventlog.Parse(log)
	require.NoError(t, err)
	var list [][]byte
	for _, e := range events {
		if e.PCR == applicationPCR && e.Type == bootApplication {
			list = append(list, e.Data)
		}
	}
	return list
}

func TestImagePathsOfARealBoot(t *testing.T) {
	var paths []string
	for _, event := range applications(t, "../../kms/attest/testdata/eventlogs/grub-a.bin") {
		path, err := imagePath(event)
		require.NoError(t, err)
		paths = append(paths, path)
	}
	assert.Equal(t, []string{"/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/grubx64.efi", "", ""}, paths)
}

func FuzzImagePath(f *testing.F) {
	logs, err := filepath.Glob(recorded)
	require.NoError(f, err)
	require.NotEmpty(f, logs)
	for _, log := range logs {
		for _, event := range applications(f, log) {
			f.Add(event)
		}
	}
	f.Fuzz(func(t *testing.T, event []byte) {
		path, err := imagePath(slices.Clone(event))
		if err != nil {
			assert.Empty(t, path)
			return
		}
		require.LessOrEqual(t, len(path), 3*len(event))
		require.Equal(t, uint64(len(event)-imageLocation), binary.LittleEndian.Uint64(event[imageLocation-8:]))
	})
}
