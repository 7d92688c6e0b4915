package eventlog_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/eventlog"
)

// logs are recorded from real machines; package attest judges what they say.
func logs(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("../attest/testdata/eventlogs/*.bin")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	all := make(map[string][]byte)
	for _, path := range paths {
		all[filepath.Base(path)], err = os.ReadFile(path)
		require.NoError(t, err)
	}
	return all
}

// marshal writes events of the SHA-256 bank behind a log's own header.
func marshal(log []byte, events []eventlog.Event) []byte {
	le := binary.LittleEndian
	out := append([]byte{}, log[:32+int(le.Uint32(log[28:]))]...)
	for _, e := range events {
		out = le.AppendUint32(le.AppendUint32(le.AppendUint32(out, e.PCR), e.Type), 1)
		out = append(le.AppendUint16(out, 0x0b), e.Digest[:]...)
		out = append(le.AppendUint32(out, uint32(len(e.Data))), e.Data...)
	}
	return out
}

func TestRecordedLogsAreReadWhole(t *testing.T) {
	for name, log := range logs(t) {
		events, err := eventlog.Parse(log)
		require.NoError(t, err, name)
		assert.Equal(t, log, marshal(log, events), name)
	}
}

func TestCutLogsAreRefused(t *testing.T) {
	log := logs(t)["ovmf-uki.bin"]
	whole, err := eventlog.Parse(log)
	require.NoError(t, err)
	for n := range log {
		events, err := eventlog.Parse(log[:n])
		if err == nil {
			assert.Less(t, len(events), len(whole), "cut between events")
			continue
		}
		var refused *eventlog.Error
		require.ErrorAs(t, err, &refused)
	}
}

func TestBounds(t *testing.T) {
	log := logs(t)["ovmf-uki.bin"]
	many := marshal(log, make([]eventlog.Event, eventlog.MaxEvents))
	_, err := eventlog.Parse(many)
	require.NoError(t, err)
	for _, long := range [][]byte{make([]byte, eventlog.MaxBytes+1), marshal(log, make([]eventlog.Event, eventlog.MaxEvents+1))} {
		_, err = eventlog.Parse(long)
		var refused *eventlog.Error
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, eventlog.Size, refused.Code)
	}
}

// What parses with SHA-256 alone is written again to the same bytes.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"ovmf-uki.bin", "seabios-kernel.bin"} {
		f.Add(logs(f)[name])
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		events, err := eventlog.Parse(log)
		if err != nil {
			var refused *eventlog.Error
			require.ErrorAs(t, err, &refused)
			return
		}
		if header := 32 + int(binary.LittleEndian.Uint32(log[28:])); log[56] == 1 {
			require.Equal(t, log, marshal(log, events), header)
		}
	})
}
