package quorum

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum/shamir"
	"keywright.dev/kms/secret"
)

// Recovered is a key that shares combined to, checked. Whoever has it wipes it.
type Recovered struct {
	Set Set
	Key secret.Bytes
	By  []string // whose shares of the set were given and whole
}

// Failed is a set whose key was not recovered.
type Failed struct {
	Set     Set
	Have    []string // whose shares were given and whole
	Missing []string // whose were not
	Err     error    // [ErrTooFew], or a [root.ErrDoesNotOpen]
}

func (f Failed) Error() string {
	if !errors.Is(f.Err, ErrTooFew) {
		return fmt.Sprintf("recovering %s from the shares of %s: %v", f.Set, list(f.Have), f.Err)
	}
	return fmt.Sprintf("recovering %s: %v: %d of %d needed; given by %s; missing of %s",
		f.Set, f.Err, len(f.Have), f.Set.Threshold, list(f.Have), list(f.Missing))
}

func (f Failed) Unwrap() error { return f.Err }

func list(names []string) string {
	if len(names) == 0 {
		return "nobody"
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name) // it may hold a comma
	}
	return strings.Join(quoted, ", ")
}

// Outcome is what came of the shares that were given.
type Outcome struct {
	Recovered []Recovered
	Failed    []Failed
	Faults    []Fault
}

// Wipe wipes the keys.
func (o Outcome) Wipe() {
	for _, r := range o.Recovered {
		r.Key.Wipe()
	}
}

// Combine recovers the key of each set that enough shares were given of, in any
// order, however often. With wanted sets, which wrappers name, it recovers those
// alone, and a share of another is a fault; without, every set of which a share
// was given. The shares stay the caller's to wipe.
func Combine(wanted []Set, given []Given) Outcome {
	var out Outcome
	piles := make([]pile, 0, len(wanted))
	for _, set := range wanted {
		piles = pileFor(piles, set)
	}
	for _, g := range given {
		s, err := parseShare(g.Data)
		if err != nil {
			out.Faults = append(out.Faults, *newFault(g, s, err))
			continue
		}
		if len(wanted) == 0 {
			piles = pileFor(piles, s.set)
		}
		i := slices.IndexFunc(piles, func(p pile) bool { return p.set.equal(s.set) })
		if i < 0 {
			s.value.Wipe()
			out.Faults = append(out.Faults, *newFault(g, s, fmt.Errorf("%s of the quorum %s: %w", s.set, s.set.Quorum, ErrForeign)))
			continue
		}
		piles[i].add(s)
	}
	for _, p := range piles {
		p.combine(&out)
	}
	out.holdAgainstEachOther()
	return out
}

// pile holds the shares of one set by their number. All are whole.
type pile struct {
	set    Set
	values map[int]secret.Bytes
}

func pileFor(piles []pile, set Set) []pile {
	if slices.ContainsFunc(piles, func(p pile) bool { return p.set.equal(set) }) {
		return piles
	}
	return append(piles, pile{set, make(map[int]secret.Bytes)})
}

// add takes a share. A second one with its number is the same: both are of the
// digest in the set.
func (p pile) add(s share) {
	if _, twice := p.values[s.number]; twice {
		s.value.Wipe()
		return
	}
	p.values[s.number] = s.value
}

func (p pile) combine(out *Outcome) {
	defer func() {
		for _, v := range p.values {
			v.Wipe()
		}
	}()
	numbers := slices.Sorted(maps.Keys(p.values))
	key, err := p.key(numbers)
	if err != nil {
		out.Failed = append(out.Failed, p.failed(numbers, err))
		return
	}
	out.Recovered = append(out.Recovered, Recovered{p.set, key, p.set.names(numbers)})
}

func (p pile) key(numbers []int) (secret.Bytes, error) {
	if len(numbers) < p.set.Threshold {
		return secret.Bytes{}, ErrTooFew
	}
	var shares []shamir.Share
	for _, n := range numbers[:p.set.Threshold] {
		shares = append(shares, shamir.Share{Number: byte(n), Value: p.values[n]})
	}
	payload, err := shamir.Combine(shares)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", root.ErrDoesNotOpen, err)
	}
	defer payload.Wipe()
	return openPayload(payload, p.set)
}

func (p pile) failed(numbers []int, err error) Failed {
	var missing []int
	for n := 1; n <= len(p.set.Custodians); n++ {
		if !slices.Contains(numbers, n) {
			missing = append(missing, n)
		}
	}
	return Failed{p.set, p.set.names(numbers), p.set.names(missing), err}
}

// holdAgainstEachOther gives out no key of a context for which two sets hold
// different ones: one of them is forged, and nothing here tells which.
func (o *Outcome) holdAgainstEachOther() {
	agreed := o.Recovered[:0:0]
	for _, r := range o.Recovered {
		other := slices.IndexFunc(o.Recovered, func(other Recovered) bool {
			return string(r.Set.Context) == string(other.Set.Context) && !r.Key.Equal(other.Key)
		})
		if other < 0 {
			agreed = append(agreed, r)
			continue
		}
		err := fmt.Errorf("%w: %s holds another key for it", root.ErrDoesNotOpen, o.Recovered[other].Set)
		o.Failed = append(o.Failed, Failed{Set: r.Set, Have: r.By, Err: err})
	}
	for _, r := range o.Recovered {
		if !slices.ContainsFunc(agreed, func(a Recovered) bool { return a.Set.equal(r.Set) }) {
			r.Key.Wipe()
		}
	}
	o.Recovered = agreed
}
