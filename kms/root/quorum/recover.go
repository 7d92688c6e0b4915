package quorum

import (
	"bytes"
	"fmt"
	"slices"

	"keywright.dev/kms/secret"
)

// Result is what shares gave of one keyring version.
type Result struct {
	Name string
	By   []string // whose shares were given and whole
	// Key is checked, and is whoever's to wipe who has the result; empty where
	// Err is not nil.
	Key secret.Bytes
	Err error
	// Altered is an [ErrAltered] where the key is good though something in its
	// wrapper is not as it was made, such as the share of another custodian.
	Altered error
}

// Recover returns for each entry, in their order, what the shares give of it. A
// share that is of none of them is a fault. The shares stay the caller's.
func Recover(entries []Entry, given []Given) ([]Result, []Fault) {
	results := make([]Result, len(entries))
	rows := make([]Row, len(entries))
	var wanted []Set
	for i, e := range entries {
		results[i].Name = e.Name
		rows[i], results[i].Err = e.row()
		if results[i].Err == nil {
			wanted = append(wanted, rows[i].Set)
		}
	}
	if len(wanted) == 0 {
		return results, nil
	}
	out := Combine(wanted, given)
	defer out.Wipe()
	for i := range results {
		if results[i].Err == nil {
			results[i].fill(rows[i], out)
		}
	}
	return results, out.Faults
}

// row reads an entry's wrapper and refuses one that was moved there.
func (e Entry) row() (Row, error) {
	row, err := ParseRow(e.Wrapped)
	if err != nil {
		return Row{}, fmt.Errorf("recovering %s: %w", e.Name, err)
	}
	if !bytes.Equal(row.Set.Context, e.Context) {
		return Row{}, fmt.Errorf("recovering %s: its wrapper is that of another: %s: %w", e.Name, row.Set, ErrAltered)
	}
	return row, nil
}

func (r *Result) fill(row Row, out Outcome) {
	for _, f := range out.Failed {
		if f.Set.equal(row.Set) {
			r.By, r.Err = f.Have, f
			return
		}
	}
	i := slices.IndexFunc(out.Recovered, func(k Recovered) bool { return k.Set.equal(row.Set) })
	r.By, r.Key = out.Recovered[i].By, out.Recovered[i].Key.Clone()
	r.Altered = row.Verify(r.Key, row.Set.Context)
}
