package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// knownKeys returns every key of the file, sections included, in order.
func knownKeys() []string {
	var keys []string
	sections := reflect.TypeFor[Config]()
	for i := range sections.NumField() {
		section := sections.Field(i)
		name := section.Tag.Get("toml")
		keys = append(keys, name)
		for j := range section.Type.NumField() {
			keys = append(keys, name+"."+section.Type.Field(j).Tag.Get("toml"))
		}
	}
	return keys
}

// unknownKeys refuses the keys of a file that no field has.
func unknownKeys(text string, present []toml.Key) error {
	known := knownKeys()
	var errs []error
	for _, key := range present {
		if slices.Contains(known, strings.Join(key, ".")) {
			continue
		}
		where := ""
		if line := lineOf(text, key); line > 0 {
			where = fmt.Sprintf("line %d: ", line)
		}
		errs = append(errs, fmt.Errorf("%sunknown key %.80q%s", where, key.String(), suggestion(key.String(), known)))
	}
	return errors.Join(errs...)
}

// lineOf finds the line in which a key stands, from 1; 0 where it stands in a
// form that this does not follow, such as an inline table.
func lineOf(text string, key toml.Key) int {
	var table string
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if inner, ok := strings.CutPrefix(line, "["); ok {
			table, _, _ = strings.Cut(strings.TrimLeft(inner, "["), "]")
			if table = strings.TrimSpace(table); table == key.String() {
				return i + 1
			}
			continue
		}
		name, _, ok := strings.Cut(line, "=")
		name = strings.Trim(strings.TrimSpace(name), `"'`)
		full := strings.TrimPrefix(table+"."+name, ".")
		if ok && full == strings.Join(key, ".") {
			return i + 1
		}
	}
	return 0
}

// suggestion names the nearest known key, if there is one near.
func suggestion(key string, known []string) string {
	best, distance := "", len(key)/2+1
	for _, candidate := range known {
		if d := editDistance(strings.ToLower(key), candidate); d < distance {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			previous, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, previous+cost)
		}
	}
	return row[len(b)]
}
