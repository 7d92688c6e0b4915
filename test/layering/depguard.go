package layering

import (
	"fmt"
	"strings"
)

// Depguard renders the tables as the rules of the linter depguard, the indented
// lines that stand in .golangci.yml. The linter reports in the editor and at the
// line of the import; only the graph's test sees what is pulled in from afar.
//
// A rule's deny list holds at most one path of ours: depguard compares an import
// with its nearest neighbour in the sorted list alone, so that a path below
// another hides it.
func Depguard() string {
	var out strings.Builder
	for _, room := range Rooms() {
		if room.Path == "test/..." {
			continue
		}
		writeRule(&out, room.Path, []string{files(room.Path)}, room.May, room.denials())
		if len(room.OnlyBy) > 0 {
			denied := []denial{{Module + "/" + room.Path + "$", room.whyOnlyBy()}}
			writeRule(&out, "only "+room.Path, filesExcept(append(room.OnlyBy, "test/...")), nil, denied)
		}
	}
	for _, lib := range Libraries() {
		denied := []denial{{strings.TrimSuffix(lib.Path, "/..."), lib.why()}}
		writeRule(&out, "lib "+lib.Path, filesExcept(lib.Homes), nil, denied)
	}
	return out.String()
}

// denial is a package that a rule forbids, as depguard writes it: a prefix, or
// the very path where it ends in "$".
type denial struct{ pkg, why string }

func (r Room) denials() []denial {
	denied := []denial{{Module, r.why()}}
	for _, path := range r.Not {
		denied = append(denied, denial{path + "$", fmt.Sprintf("%s does not import it: %s.", r.Path, r.Why)})
	}
	return denied
}

func writeRule(out *strings.Builder, name string, files, may []string, denied []denial) {
	fmt.Fprintf(out, "        %q:\n", ruleName(name))
	fmt.Fprintf(out, "          files: [%s]\n", quoted(append(files, "!$test")))
	if len(may) > 0 {
		fmt.Fprintf(out, "          allow: [%s]\n", quoted(allowed(may)))
	}
	fmt.Fprintf(out, "          list-mode: lax\n          deny:\n")
	for _, d := range denied {
		fmt.Fprintf(out, "            - {pkg: %q, desc: %q}\n", d.pkg, d.why)
	}
}

// ruleName is a name without dots, at which the linter's configuration would be split.
func ruleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path, "/..."), ".", "-")
}

// allowed turns the table's paths into depguard's prefixes and exact paths.
func allowed(may []string) []string {
	list := make([]string, len(may))
	for i, path := range may {
		parent, open := strings.CutSuffix(path, "/...")
		list[i] = Module + "/" + parent
		if !open {
			list[i] += "$"
		}
	}
	return list
}

// files is the glob for the Go files of a room.
func files(room string) string {
	parent, open := strings.CutSuffix(room, "/...")
	if open {
		return "${config-path}/" + parent + "/**/*.go"
	}
	return "${config-path}/" + parent + "/*.go"
}

func filesExcept(rooms []string) []string {
	list := make([]string, len(rooms))
	for i, room := range rooms {
		list[i] = "!" + files(room)
	}
	return list
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}
