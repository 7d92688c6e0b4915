package audit

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Shape of C2SP tlog-tiles.
const (
	tileHeight = 8
	// TileWidth is the number of hashes, or of entries, in a full tile.
	TileWidth = 1 << tileHeight
)

// tlogPrefix and tlogData are what package tlog writes where C2SP tlog-tiles
// has "tile/" and "entries".
const (
	tlogPrefix = "tile/8/"
	tlogData   = "data/"
)

// Tile is one tile of C2SP tlog-tiles: Level 0 to 6 for hashes, [EntriesLevel]
// for the entries themselves.
type Tile struct {
	Level int
	Index int64
	Width int // 1 to [TileWidth]
}

// EntriesLevel is the level of entry bundles.
const EntriesLevel = -1

// maxTileLevel is the highest level that a tree of maxSize has.
const maxTileLevel = 6

// TilesBetween lists the hash tiles and entry bundles to publish when the tree
// has grown from size older to newer.
func TilesBetween(older, newer int64) []Tile {
	var tiles []Tile
	for _, t := range tlog.NewTiles(tileHeight, older, newer) {
		tile := Tile{t.L, t.N, t.W}
		tiles = append(tiles, tile)
		if tile.Level == 0 {
			tile.Level = EntriesLevel
			tiles = append(tiles, tile)
		}
	}
	return tiles
}

// Path returns the tile's path below the log's prefix, such as
// tile/0/x001/x234/067 or tile/entries/000.p/5.
func (t Tile) Path() string {
	path := strings.TrimPrefix(t.tlog().Path(), tlogPrefix)
	if data, ok := strings.CutPrefix(path, tlogData); ok {
		path = "entries/" + data
	}
	return "tile/" + path
}

// ParseTilePath parses what [Tile.Path] returned.
func ParseTilePath(path string) (Tile, error) {
	rest, _ := strings.CutPrefix(path, "tile/")
	if entries, ok := strings.CutPrefix(rest, "entries/"); ok {
		rest = tlogData + entries
	}
	parsed, err := tlog.ParseTilePath(tlogPrefix + rest)
	t := Tile{parsed.L, parsed.N, parsed.W}
	if err != nil || t.Level > maxTileLevel || t.Index > maxSize>>tileHeight || t.Path() != path {
		return Tile{}, fmt.Errorf("parsing tile path: want tile/<level|entries>/<index>[.p/<width>]")
	}
	return t, nil
}

func (t Tile) tlog() tlog.Tile {
	return tlog.Tile{H: tileHeight, L: t.Level, N: t.Index, W: t.Width}
}

// Hashes returns the bytes of a hash tile.
func (t Tile) Hashes(stored HashReader) ([]byte, error) {
	if t.Level < 0 {
		return nil, fmt.Errorf("reading tile %s: it holds entries", t.Path())
	}
	data, err := tlog.ReadTileData(t.tlog(), stored)
	if err != nil {
		return nil, fmt.Errorf("reading tile %s: %w", t.Path(), err)
	}
	return data, nil
}

// Bundle returns the bytes of an entry bundle: each signed entry, as
// [Signed.Marshal] returned it, behind its length in two bytes, big-endian.
func Bundle(signed [][]byte) ([]byte, error) {
	if len(signed) == 0 || len(signed) > TileWidth {
		return nil, fmt.Errorf("bundling audit entries: %d, want 1 to %d", len(signed), TileWidth)
	}
	var b []byte
	for i, s := range signed {
		if len(s) > MaxEntry+signedFrame {
			return nil, fmt.Errorf("bundling audit entries: entry %d has %d bytes, want at most %d",
				i, len(s), MaxEntry+signedFrame)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return b, nil
}
