package claims

import (
	"slices"
	"strconv"
)

// Names of differences that are about a set as a whole.
const (
	// DifferentKind compares sets of two kinds.
	DifferentKind = "kind"
	// DifferentOrder means that each name's values agree and only the order
	// between names does not; the values are "position: claim".
	DifferentOrder = "order"
)

// Difference is one fact that differs. Was or Is is empty when the claim is
// new or gone.
type Difference struct {
	Name string
	Was  string
	Is   string
}

// Diff returns what differs between two sets, name by name in the order of
// was, then what only is has. It returns nothing exactly when they are equal.
// Of a name with several values it pairs those that changed: what both lists
// begin or end with is left out.
func Diff(was, is Set) []Difference {
	if was.Equal(is) {
		return nil
	}
	if was.kind != is.kind {
		return []Difference{{DifferentKind, string(was.kind), string(is.kind)}}
	}
	before, after := was.byName(), is.byName()
	var out []Difference
	for _, name := range names(was, is) {
		out = append(out, diffValues(name, before[name], after[name])...)
	}
	if len(out) == 0 {
		return []Difference{firstMoved(was, is)}
	}
	return out
}

func (s Set) byName() map[string][]string {
	values := make(map[string][]string)
	for _, c := range s.claims {
		values[c.Name] = append(values[c.Name], c.Value)
	}
	return values
}

// names lists each name once, in the order of its first occurrence.
func names(sets ...Set) []string {
	var list []string
	seen := make(map[string]bool)
	for _, s := range sets {
		for _, c := range s.claims {
			if !seen[c.Name] {
				seen[c.Name] = true
				list = append(list, c.Name)
			}
		}
	}
	return list
}

func diffValues(name string, was, is []string) []Difference {
	was, is = trimCommon(was, is)
	if len(was) != len(is) {
		// Something was inserted or removed: what remains on both sides is
		// not what differs.
		was, is = without(was, is), without(is, was)
	}
	var out []Difference
	for i := range max(len(was), len(is)) {
		d := Difference{name, at(was, i), at(is, i)}
		if d.Was != d.Is {
			out = append(out, d)
		}
	}
	return out
}

func trimCommon(a, b []string) ([]string, []string) {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

// without returns list without the values of other, counted: two of a value
// here and one there leave one.
func without(list, other []string) []string {
	count := make(map[string]int)
	for _, v := range other {
		count[v]++
	}
	return slices.DeleteFunc(slices.Clone(list), func(v string) bool {
		count[v]--
		return count[v] >= 0
	})
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

// firstMoved is for two sets in which the same claims stand in another order.
func firstMoved(was, is Set) Difference {
	for i := range was.claims {
		if was.claims[i] != is.claims[i] {
			position := strconv.Itoa(i+1) + ": "
			return Difference{DifferentOrder, position + was.claims[i].String(), position + is.claims[i].String()}
		}
	}
	return Difference{}
}
