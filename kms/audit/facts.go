package audit

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFactBytes bounds all facts of an entry, encoded, so that they never make
// an entry too large.
const maxFactBytes = 40 << 10

// omitted names what ends a list that [BoundFacts] or [BoundPolicies] shortened.
const omitted = "(omitted)"

// BoundFacts returns facts that an entry accepts, whatever their origin, so
// that a hostile event log can't make a refusal unrecordable: invalid UTF-8 is
// replaced, long values are cut and end in "…", and facts that do not fit are
// counted in a last fact named (omitted).
func BoundFacts(facts []Fact) []Fact {
	bounded := make([]Fact, 0, min(len(facts), MaxFacts))
	size := 0
	for i, f := range facts {
		f = Fact{Name: boundName(f.Name), Was: cut(f.Was, MaxValue), Is: cut(f.Is, MaxValue)}
		size += len(appendFact(nil, f)) + 1
		full := len(bounded) == MaxFacts-1 && i < len(facts)-1
		if full || size > maxFactBytes {
			return append(bounded, Fact{Name: omitted, Is: strconv.Itoa(len(facts) - i)})
		}
		bounded = append(bounded, f)
	}
	return bounded
}

// BoundPolicies returns at most as many ids as an entry accepts, so that no set of
// policies can make a decision unrecordable: those left out are counted in a last
// one, "(omitted) 9", which no policy can have.
func BoundPolicies(ids []string) []string {
	if len(ids) <= MaxPolicies {
		return ids
	}
	kept := ids[: MaxPolicies-1 : MaxPolicies-1]
	return append(kept, omitted+" "+strconv.Itoa(len(ids)-len(kept)))
}

func boundName(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
	if s == "" {
		return "(unnamed)"
	}
	return cut(s, MaxName)
}

// cut returns valid UTF-8 of at most limit bytes.
func cut(s string, limit int) string {
	const ellipsis = "…"
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= limit {
		return s
	}
	end := limit - len(ellipsis)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}
