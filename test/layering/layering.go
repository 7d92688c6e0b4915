// Package layering states which room of the tree may import which, and checks
// the import graph against it.
//
// The table is [Rooms]; [Libraries] says where a dependency is at home and
// [Reaches] what must hold of everything a package pulls in, however far away.
// The linter's depguard rules are rendered from the same table, so that the two
// cannot come to differ.
//
// Direct imports of non-test files are bound. Tests may import what they need:
// that is what test/ is for, and Go refuses cycles by itself.
package layering

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Module is the path below which every package is ours.
const Module = "keywright.dev"

// Package is a node of the import graph.
type Package struct {
	Imports  []string // import paths, of non-test files
	Cgo      bool     // some file of it needs a C compiler
	Standard bool     // part of the standard library
}

// Graph holds packages by import path.
type Graph map[string]Package

// Violation is an arrow that must not be.
type Violation struct {
	Arrow []string // import paths from the importing package to the imported
	Why   string   // what breaks, and what to do instead
}

// String prints the arrow and the reason on two lines.
func (v Violation) String() string {
	short := make([]string, len(v.Arrow))
	for i, path := range v.Arrow {
		short[i] = Short(path)
	}
	return strings.Join(short, " → ") + "\n    " + v.Why
}

// Short is an import path as the table writes it: below the module, if ours.
func Short(path string) string {
	return strings.TrimPrefix(path, Module+"/")
}

// Check returns every arrow of g that the tables forbid, in the order of import paths.
func Check(g Graph) []Violation {
	var found []Violation
	for _, path := range slices.Sorted(maps.Keys(g)) {
		if !isOurs(path) {
			continue
		}
		found = append(found, checkDirect(path, g[path])...)
		found = append(found, checkReach(path, g)...)
	}
	return found
}

func checkDirect(path string, p Package) []Violation {
	room, known := RoomOf(path)
	if !known {
		return []Violation{{[]string{path}, unknownRoom}}
	}
	var found []Violation
	if p.Cgo && !room.Cgo {
		found = append(found, Violation{[]string{path, "C"}, whyCgo})
	}
	for _, imported := range p.Imports {
		if why := room.refuses(imported); why != "" {
			found = append(found, Violation{[]string{path, imported}, why})
		}
	}
	return found
}

// refuses returns why the room may not import path, or "".
func (r Room) refuses(path string) string {
	if isOurs(path) {
		return r.refusesOurs(path)
	}
	if matchAny(r.Not, path) {
		return fmt.Sprintf("%s does not import %s: %s.", r.Path, path, r.Why)
	}
	for _, lib := range Libraries() {
		if match(lib.Path, path) && !matchAny(lib.Homes, r.Path) {
			return lib.why()
		}
	}
	return ""
}

func (r Room) refusesOurs(path string) string {
	imported, known := RoomOf(path)
	switch {
	case !known:
		return unknownRoom
	case !matchAny(r.May, Short(path)):
		return r.why()
	case len(imported.OnlyBy) > 0 && !matchAny(imported.OnlyBy, r.Path):
		return imported.whyOnlyBy()
	}
	return ""
}

func isOurs(path string) bool {
	return path == Module || strings.HasPrefix(path, Module+"/")
}

// match reports whether path is pattern, or below it where pattern ends in "/...".
func match(pattern, path string) bool {
	parent, open := strings.CutSuffix(pattern, "/...")
	path = strings.TrimSuffix(path, "/...")
	return path == parent || open && strings.HasPrefix(path, parent+"/")
}

func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, path) })
}
