package audit_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/audit"
)

func TestTilePaths(t *testing.T) {
	// The paths of C2SP tlog-tiles, section "Merkle Tree".
	for path, tile := range map[string]audit.Tile{
		"tile/0/000":                 {Level: 0, Index: 0, Width: 256},
		"tile/0/x001/x234/067":       {Level: 0, Index: 1234067, Width: 256},
		"tile/1/x001/000.p/112":      {Level: 1, Index: 1000, Width: 112},
		"tile/entries/x001/x234/067": {Level: audit.EntriesLevel, Index: 1234067, Width: 256},
		"tile/entries/000.p/5":       {Level: audit.EntriesLevel, Index: 0, Width: 5},
	} {
		assert.Equal(t, path, tile.Path())
		got, err := audit.ParseTilePath(path)
		require.NoError(t, err, path)
		assert.Equal(t, tile, got)
	}
}

func TestParseTilePathRefuses(t *testing.T) {
	for _, bad := range []string{
		"", "tile", "tile/8/0/000", "0/000", "tile/data/000", "tile/-1/000", "tile/00/000", "tile/7/000",
		"tile/0/0", "tile/0/1000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/05", "tile/0/x000/001",
		"tile/0/../../etc/passwd", "tile/0/000/", "tile/entries", "tile/0/x999/x999/x999/x999/x999/999",
	} {
		_, err := audit.ParseTilePath(bad)
		assert.Error(t, err, bad)
	}
}

func TestTilesOfAGrowingLog(t *testing.T) {
	l := newLog(t, 250, 10)
	var paths []string
	for _, tile := range audit.TilesBetween(250, 260) {
		paths = append(paths, tile.Path())
		if tile.Level == audit.EntriesLevel {
			_, err := tile.Hashes(l.stored)
			require.ErrorContains(t, err, "holds entries")
			continue
		}
		data, err := tile.Hashes(l.stored)
		require.NoError(t, err)
		require.Len(t, data, tile.Width*len(audit.Hash{}))
		if tile.Level == 0 {
			assert.Equal(t, l.leaves[256*tile.Index][:], data[:32])
		}
	}
	assert.Equal(t, []string{
		"tile/0/000", "tile/entries/000", "tile/0/001.p/4", "tile/entries/001.p/4", "tile/1/000.p/1",
	}, paths)

	_, err := audit.Tile{Level: 0, Index: 9, Width: 1}.Hashes(l.stored)
	require.ErrorContains(t, err, "reading tile tile/0/009.p/1")
}

func TestBundle(t *testing.T) {
	l := newLog(t, 3)
	b, err := audit.Bundle(l.entries)
	require.NoError(t, err)
	for _, want := range l.entries {
		n := binary.BigEndian.Uint16(b)
		assert.Equal(t, want, b[2:2+n])
		b = b[2+n:]
	}
	assert.Empty(t, b)

	_, err = audit.Bundle(nil)
	require.ErrorContains(t, err, "want 1 to 256")
	_, err = audit.Bundle([][]byte{make([]byte, 1<<16)})
	require.ErrorContains(t, err, "has 65536 bytes")
}

func FuzzParseTilePath(f *testing.F) {
	f.Add("tile/0/x001/x234/067")
	f.Add("tile/entries/000.p/5")
	f.Fuzz(func(t *testing.T, path string) {
		if tile, err := audit.ParseTilePath(path); err == nil {
			assert.Equal(t, path, tile.Path())
		}
	})
}
