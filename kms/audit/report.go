package audit

import (
	"errors"
	"fmt"
	"time"
)

// FindingKind classes what is wrong with an export.
type FindingKind string

// The kinds of finding.
const (
	// Edited: the entry's bytes are not what the log's key signed.
	Edited FindingKind = "edited"
	// Replaced: a signed entry that is not the one the tree holds at this place.
	Replaced FindingKind = "replaced"
	// Missing: entries that should stand here do not.
	Missing FindingKind = "missing"
	// OutOfOrder: an entry stands after a later one, or twice.
	OutOfOrder FindingKind = "out-of-order"
	// Rewritten: the entries are not those that a signed head was signed over.
	Rewritten FindingKind = "rewritten"
	// Truncated: entries that a signed head covers are cut off at the end.
	Truncated FindingKind = "truncated"
	// Uncovered: entries after the last signed head.
	Uncovered FindingKind = "uncovered"
	// BadHead: a head that the log's key did not sign, or in the wrong place.
	BadHead FindingKind = "bad-head"
	// Malformed: a line that is neither entry nor head.
	Malformed FindingKind = "malformed"
)

// Finding is one thing that is wrong, in the entries numbered First to Last,
// counted from 0. Line is the line of the export, counted from 1, where it
// showed; 0 where it showed at the end.
type Finding struct {
	Kind        FindingKind
	First, Last int64
	Line        int64
	Text        string
}

// String returns one line for a person.
func (f Finding) String() string {
	where := fmt.Sprintf("entry %d", f.First)
	if f.Last > f.First {
		where = fmt.Sprintf("entries %d to %d", f.First, f.Last)
	}
	return fmt.Sprintf("%s: %s: %s", where, f.Kind, f.Text)
}

// maxFindings bounds a report; the rest are counted.
const maxFindings = 100

// Report is what [VerifyExport] found.
type Report struct {
	Entries int64 // entry lines read
	Heads   int64 // signed heads that were verified
	Kept    int   // kept heads that the entries agree with
	// Head is the tree of the last head that the entries agree with.
	Head Tree
	// First and Last are the earliest and the latest time of a verified entry.
	First, Last time.Time
	Findings    []Finding
	More        int64 // findings beyond those listed
}

// ErrTampered is returned with a report that has findings.
var ErrTampered = errors.New("the audit export does not match its signed heads")

func (r *Report) find(f Finding) {
	if len(r.Findings) == maxFindings {
		r.More++
		return
	}
	r.Findings = append(r.Findings, f)
}

func (r *Report) err() error {
	if len(r.Findings) == 0 {
		return nil
	}
	return fmt.Errorf("verifying audit export: %w: %s", ErrTampered, r.Findings[0])
}

func (r *Report) sawTime(t time.Time) {
	if r.First.IsZero() || t.Before(r.First) {
		r.First = t
	}
	if t.After(r.Last) {
		r.Last = t
	}
}
