package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// VerifyExport reads an export to its end and verifies every entry's signature,
// every entry's place in the tree, every head in it, and the heads in kept,
// which were kept elsewhere and opened with [Verifier.OpenHead]; they may be
// older or newer than the export.
//
// v must come from a key that the caller trusts, not from the export. Without a
// kept head an export that was cut off at an older head can't be told from one
// that was made then.
//
// It returns [ErrTampered], and a report that names the entries, if anything is
// wrong; another error if r can't be read or is not an export of this log.
// Memory does not grow with the export.
func VerifyExport(r io.Reader, v *Verifier, kept ...Tree) (Report, error) {
	lines := bufio.NewReaderSize(r, maxLine+1)
	if err := checkHeader(lines, v); err != nil {
		return Report{}, fmt.Errorf("verifying audit export: %w", err)
	}
	e := &examiner{v: v, tree: newFrontier(), line: 1, kept: slices.Clone(kept)}
	slices.SortFunc(e.kept, func(a, b Tree) int { return cmp.Compare(a.N, b.N) })
	if err := e.compareKept(); err != nil { // a kept head of the empty log
		return e.report, fmt.Errorf("verifying audit export: %w", err)
	}
	for {
		line, err := nextLine(lines)
		if errors.Is(err, io.EOF) {
			break
		}
		e.line++
		if err != nil {
			return e.report, fmt.Errorf("verifying audit export: reading line %d: %w", e.line, err)
		}
		if err := e.examine(line); err != nil {
			return e.report, fmt.Errorf("verifying audit export: %w", err)
		}
	}
	e.finish()
	return e.report, e.report.err()
}

// nextLine returns a line without its newline; a last line without newline is
// returned with a NUL at its end, which no valid line has.
func nextLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case err == nil:
		return line[:len(line)-1], nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("longer than %d bytes: not an audit export", maxLine)
	case errors.Is(err, io.EOF) && len(line) > 0:
		return append(bytes.Clone(line), 0), nil
	default:
		return nil, err
	}
}

func checkHeader(lines *bufio.Reader, v *Verifier) error {
	line, err := nextLine(lines)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading line 1: %w", err)
	}
	key, err := parseString(line, exportHeader)
	if err != nil {
		return fmt.Errorf("line 1 does not start with %s: not an audit export of version 1", exportHeader)
	}
	if key != v.String() {
		return fmt.Errorf("it names another log or key (%.300q) than the trusted one (%q)", key, v.String())
	}
	return nil
}

// examiner is the state of one verification.
type examiner struct {
	v      *Verifier
	report Report
	line   int64

	tree *frontier // over the hashes that the lines name
	next int64     // index that the next entry should have
	kept []Tree    // not yet reached, by size
	good int64     // size of the last head that the entries agree with

	// lost is set once the tree can't be followed any more: from then on roots
	// are not compared, since every one would differ.
	lost bool
}

func (e *examiner) examine(line []byte) error {
	if bytes.HasPrefix(line, []byte(exportHead)) {
		return e.head(line)
	}
	entry, err := parseExported(line)
	if err != nil {
		e.lost = true
		e.find(Malformed, e.next, e.next, "the line is damaged or cut off")
		if bytes.HasPrefix(line, []byte(exportIndex)) {
			e.next++
		}
		return nil
	}
	return e.entry(entry)
}

func (e *examiner) find(kind FindingKind, first, last int64, text string) {
	e.report.find(Finding{kind, first, last, e.line, text})
}

func (e *examiner) entry(entry exportedEntry) error {
	e.report.Entries++
	e.place(entry.index)
	e.content(entry)
	if e.lost {
		return nil
	}
	if _, err := e.tree.add(entry.hash); err != nil {
		return err
	}
	return e.compareKept()
}

// place checks the entry's number against those before it.
func (e *examiner) place(index int64) {
	switch {
	case index > e.next:
		e.lost = true
		e.find(Missing, e.next, index-1, "not in the export")
		e.next = index
	case index < e.next:
		e.lost = true
		e.find(OutOfOrder, index, index, fmt.Sprintf("stands where entry %d should", e.next))
		return
	}
	e.next++
}

func (e *examiner) content(entry exportedEntry) {
	parsed, err := e.v.Verify(entry.signed)
	switch {
	case err != nil:
		e.find(Edited, entry.index, entry.index, err.Error())
	case entry.replaced():
		e.find(Replaced, entry.index, entry.index, "signed, but not the entry that the tree holds here")
	default:
		e.report.sawTime(parsed.Time)
	}
}

func (e *examiner) head(line []byte) error {
	text, err := parseString(line, exportHead)
	if err != nil {
		e.find(Malformed, e.next, e.next, "the line of a head is damaged or cut off")
		return nil
	}
	signed, err := e.v.OpenHead([]byte(text))
	if err != nil {
		e.find(BadHead, e.next, e.next, err.Error())
		return nil
	}
	e.report.Heads++
	return e.compareHead(signed)
}

func (e *examiner) compareHead(signed Tree) error {
	switch {
	case signed.N > e.next:
		e.lost = true
		e.find(Missing, e.next, signed.N-1, fmt.Sprintf("the signed head here covers %d entries", signed.N))
		e.next = signed.N
		return nil
	case signed.N < e.next:
		e.find(BadHead, signed.N, e.next-1, fmt.Sprintf("the signed head here covers %d entries only", signed.N))
		return nil
	case e.lost:
		return nil
	}
	agrees, err := e.agrees(signed, "signed head")
	if agrees {
		e.report.Head = signed
	}
	return err
}

// agrees compares the tree as read so far with a signed one of the same size.
func (e *examiner) agrees(signed Tree, name string) (bool, error) {
	read, err := e.tree.tree()
	switch {
	case err != nil:
		return false, err
	case read == signed:
		e.good = signed.N
		return true, nil
	}
	e.lost = true
	e.find(Rewritten, e.good, max(e.good, signed.N-1),
		fmt.Sprintf("not the entries that the %s of size %d was signed over", name, signed.N))
	return false, nil
}

// compareKept compares with the kept heads of the size read so far.
func (e *examiner) compareKept() error {
	for len(e.kept) > 0 && e.kept[0].N == e.tree.size && !e.lost {
		agrees, err := e.agrees(e.kept[0], "kept head")
		if err != nil {
			return err
		}
		if agrees {
			e.report.Kept++
		}
		e.kept = e.kept[1:]
	}
	return nil
}

// finish checks what shows only at the end.
func (e *examiner) finish() {
	e.line = 0
	if !e.lost && e.report.Head.N < e.next || e.report.Heads == 0 {
		e.find(Uncovered, e.report.Head.N, max(e.report.Head.N, e.next-1), "no signed head follows")
	}
	for _, kept := range e.kept {
		if kept.N > e.next {
			e.find(Truncated, e.next, kept.N-1, fmt.Sprintf(
				"the export ends before the kept head of size %d: it was cut off, or made before that head", kept.N))
		}
	}
}
