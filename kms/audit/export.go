package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// Frames of the export's lines.
const (
	exportHeader = `{"keywright-audit-export":1,"key":`
	exportIndex  = `{"index":`
	exportHash   = `,"hash":"`
	exportLeaf   = `","leaf":`
	exportHead   = `{"head":`

	hashDigits = 44 // base64 of 32 bytes

	// maxLine bounds a line; escaping at most doubles a head.
	maxLine = 2*maxHead + MaxEntry + signedFrame
)

// Exporter writes an export: a header with the log's key, then every entry in
// order, and each signed head right after the last entry that it covers.
type Exporter struct {
	w    io.Writer
	next int64
}

// NewExporter writes the header. Writes go to w as they come: buffer it.
func NewExporter(w io.Writer, v *Verifier) (*Exporter, error) {
	x := &Exporter{w: w}
	line := appendString([]byte(exportHeader), v.String())
	return x, x.write(append(line, '}'))
}

// Entry writes the next entry: signed as [Signed.Marshal] returned it, and the
// leaf hash that the tree holds for it, read from the tree and not computed from
// signed, so that a verifier can tell which of the two was changed.
func (x *Exporter) Entry(signed []byte, leaf Hash) error {
	line := make([]byte, 0, len(signed)+128)
	line = strconv.AppendInt(append(line, exportIndex...), x.next, 10)
	line = base64.StdEncoding.AppendEncode(append(line, exportHash...), leaf[:])
	line = append(append(line, exportLeaf...), signed...)
	x.next++
	return x.write(append(line, '}'))
}

// Head writes a signed head whose size is the number of entries written. The
// last line of an export is a head.
func (x *Exporter) Head(head []byte) error {
	return x.write(append(appendString([]byte(exportHead), string(head)), '}'))
}

func (x *Exporter) write(line []byte) error {
	if _, err := x.w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing audit export: %w", err)
	}
	return nil
}

var errLine = errors.New("not a line of an export")

// parseString parses what [appendString] wrote between start and "}".
func parseString(line []byte, start string) (string, error) {
	body, ok := bytes.CutPrefix(line, []byte(start))
	if !ok || !bytes.HasSuffix(body, []byte("}")) {
		return "", errLine
	}
	body = body[:len(body)-1]
	var s string
	if json.Unmarshal(body, &s) != nil || !bytes.Equal(appendString(nil, s), body) {
		return "", errLine
	}
	return s, nil
}

// exportedEntry is one entry line, taken apart.
type exportedEntry struct {
	index  int64
	hash   Hash
	signed []byte
}

// replaced reports whether the entry is not the one that the tree holds.
func (e exportedEntry) replaced() bool { return tlog.RecordHash(e.signed) != e.hash }

func parseExported(line []byte) (exportedEntry, error) {
	rest, ok := bytes.CutPrefix(line, []byte(exportIndex))
	number, rest, ok2 := bytes.Cut(rest, []byte(exportHash))
	if !ok || !ok2 || len(rest) <= hashDigits || !bytes.HasSuffix(rest, []byte("}")) {
		return exportedEntry{}, errLine
	}
	index, err := parseSize(string(number))
	if err != nil {
		return exportedEntry{}, errLine
	}
	hash, err := parseHash(string(rest[:hashDigits]))
	signed, ok := bytes.CutPrefix(rest[hashDigits:len(rest)-1], []byte(exportLeaf))
	if err != nil || !ok {
		return exportedEntry{}, errLine
	}
	return exportedEntry{index, hash, signed}, nil
}
