package layering

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// graph builds a graph from lines "package: import import …", paths of ours
// written below the module behind a "./".
func graph(lines ...string) Graph {
	g := Graph{}
	for _, line := range lines {
		path, imports, _ := strings.Cut(line, ":")
		path, cgo := strings.CutSuffix(path, " (cgo)")
		path, standard := strings.CutSuffix(path, " (std)")
		p := Package{Cgo: cgo, Standard: standard}
		for _, imported := range strings.Fields(imports) {
			p.Imports = append(p.Imports, full(imported))
		}
		g[full(path)] = p
	}
	return g
}

func full(path string) string {
	if below, ours := strings.CutPrefix(path, "./"); ours {
		return Module + "/" + below
	}
	return path
}

func TestForbiddenArrows(t *testing.T) {
	for name, c := range map[string]struct {
		graph Graph
		arrow string
		why   string
	}{
		"leaf":                     {graph("./kms/secret: ./kms/claims"), "kms/secret → kms/claims", "imports nothing of ours"},
		"domain to store":          {graph("./kms: ./kms/store/sqlite"), "kms → kms/store/sqlite", "declares the small interfaces"},
		"domain to wire types":     {graph("./kms: ./kms/api"), "kms → kms/api", "may import kms/secret"},
		"domain to HTTP":           {graph("./kms: net/http"), "kms → net/http", "neither its listeners"},
		"store to store":           {graph("./kms/store/postgres: ./kms/store/sqlite"), "kms/store/postgres → kms/store/sqlite", "decides nothing"},
		"rows of another store":    {graph("./kms/store/postgres: ./kms/store/sqlite/sqlitedb"), "kms/store/postgres → kms/store/sqlite/sqlitedb", "decides nothing"},
		"rows from a command":      {graph("./cmd/keywright: ./kms/store/sqlite/sqlitedb"), "cmd/keywright → kms/store/sqlite/sqlitedb", "imported by kms/store/sqlite and by tests only"},
		"suite of roots":           {graph("./cmd/keywright: ./kms/root/roottest"), "cmd/keywright → kms/root/roottest", "linked into tests only"},
		"suite of stores":          {graph("./cmd/keywright: ./kms/store/storetest"), "cmd/keywright → kms/store/storetest", "linked into tests only"},
		"root to domain":           {graph("./clients/vault: ./kms"), "clients/vault → kms", "leave with its vendor"},
		"guest to domain":          {graph("./unlock: ./kms"), "unlock → kms", "holds none of the service"},
		"pure room to files":       {graph("./kms/attest: os"), "kms/attest → os", "it is pure"},
		"policy language":          {graph("./kms: github.com/cedar-policy/cedar-go"), "kms → github.com/cedar-policy/cedar-go", "at home in kms/policy"},
		"below a library":          {graph("./kms/server: modernc.org/sqlite/lib"), "kms/server → modernc.org/sqlite/lib", "at home in kms/store/sqlite"},
		"command to test":          {graph("./cmd/keywright: ./test/vm"), "cmd/keywright → test/vm", "nothing of test/ is"},
		"cgo outside its room":     {graph("./kms/store/sqlite (cgo):"), "kms/store/sqlite → C", "only in hsm/pkcs11"},
		"package without a row":    {graph("./kms/cache:"), "kms/cache", "Add one"},
		"import of one without":    {graph("./kms: ./kms/cache"), "kms → kms/cache", "Add one"},
		"guest pulls in domain":    {graph("./cmd/keywright-unlock: ./unlock", "./unlock: ./kms"), "cmd/keywright-unlock → unlock → kms", "every initramfs"},
		"guest pulls in a cloud":   {graph("./cmd/keywright-unlock: x", "x: y", "y: github.com/aws/z"), "cmd/keywright-unlock → x → y → github.com/aws/z", "every initramfs"},
		"guest pulls in a driver":  {graph("./cmd/keywright-unlock: x", "x: database/sql"), "cmd/keywright-unlock → x → database/sql", "every initramfs"},
		"guest pulls in cgo":       {graph("./cmd/keywright-unlock: x", "x (cgo):"), "cmd/keywright-unlock → x", "no cgo"},
		"attest reaches a network": {graph("./kms/attest: x", "x: net/http"), "kms/attest → x → net/http", "it is pure"},
		"policy reaches a program": {graph("./kms/policy: x", "x: os/exec"), "kms/policy → x → os/exec", "it is pure"},
		"envelope reaches a store": {graph("./kms/envelope: x", "x: database/sql"), "kms/envelope → x → database/sql", "it is pure"},
		"envelope reaches ours":    {graph("./kms/envelope: ./kms/secret", "./kms/secret: ./kms/claims"), "kms/envelope → kms/secret → kms/claims", "it is pure"},
		"test reached from afar":   {graph("./kms/pki: x", "x: ./test/sim"), "kms/pki → x → test/sim", "never shipped"},
	} {
		t.Run(name, func(t *testing.T) {
			why, found := arrows(Check(c.graph))[c.arrow]
			require.True(t, found, "%s is not reported, but %v", c.arrow, Check(c.graph))
			assert.Contains(t, why, c.why)
		})
	}
}

func arrows(found []Violation) map[string]string {
	all := map[string]string{}
	for _, v := range found {
		arrow, why, _ := strings.Cut(v.String(), "\n")
		all[arrow] += why
	}
	return all
}

func TestAllowedArrows(t *testing.T) {
	g := graph(
		"./kms: ./kms/secret ./kms/root ./kms/attest github.com/google/go-tpm/tpm2 time",
		"./kms/policy: ./kms/claims github.com/cedar-policy/cedar-go",
		"./kms/store/sqlite: ./kms ./kms/store/sqlite/sqlitedb modernc.org/sqlite",
		"./kms/attest: ./kms/claims crypto/x509", "crypto/x509 (std): net os",
		"./hsm/pkcs11 (cgo): ./kms/root github.com/miekg/pkcs11",
		"./cmd/keywright: ./kms ./kms/store/sqlite ./kms/root/file ./clients/vault",
		"./cmd/keywright-unlock: ./unlock net", "./unlock: ./unlock/luks ./kms/api", "net (cgo) (std):",
		"./test/sim: ./kms ./kms/store/storetest ./cmd/keywright ./test/vm modernc.org/sqlite",
	)
	assert.Empty(t, Check(g))
}

// TestEveryRowRefuses breaks each row of each table once, so that no row can stand
// there without effect.
func TestEveryRowRefuses(t *testing.T) {
	for _, room := range Rooms() {
		for _, other := range Rooms() {
			if matchAny(room.May, other.Path) || room.Path == "test/..." {
				continue
			}
			assert.NotEmpty(t, room.refuses(Module+"/"+example(other.Path)), "%s → %s", room.Path, other.Path)
		}
		for _, path := range room.Not {
			assert.NotEmpty(t, room.refuses(path), "%s → %s", room.Path, path)
		}
		assert.NotEmpty(t, room.Why, room.Path)
	}
	for _, lib := range Libraries() {
		assert.NotEmpty(t, Room{Path: "kms/server2"}.refuses(example(lib.Path)), lib.Path)
	}
	for _, rule := range Reaches() {
		for _, path := range append(rule.Not, unreachable(rule)...) {
			from := Module + "/" + example(rule.From[0])
			g := Graph{from: {Imports: []string{"x"}}, "x": {Imports: []string{example(path)}}}
			assert.NotEmpty(t, forbiddenChains(from, g, rule), "%s … %s", rule.From[0], path)
		}
	}
}

// unreachable lists the rooms of ours that the rule leaves out.
func unreachable(rule Reach) []string {
	var left []string
	for _, room := range Rooms() {
		if len(rule.Ours) > 0 && !matchAny(rule.Ours, room.Path) {
			left = append(left, Module+"/"+room.Path)
		}
	}
	return left
}

// example is a path that a pattern of the tables matches.
func example(pattern string) string {
	if parent, open := strings.CutSuffix(pattern, "/..."); open {
		return parent + "/some"
	}
	return pattern
}

func TestRoomOfTakesTheLongestPath(t *testing.T) {
	for path, want := range map[string]string{
		"kms": "kms", "kms/root": "kms/root", "kms/root/file": "kms/root/file",
		"clients/awskms": "clients/awskms", "clients/some": "clients/...", "cmd/keywright/internal/flags": "cmd/...",
		"kms/server/internal": "", "kmsx": "",
	} {
		room, _ := RoomOf(Module + "/" + path)
		assert.Equal(t, want, room.Path, path)
	}
}
