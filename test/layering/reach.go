package layering

import (
	"fmt"
	"slices"
	"strings"
)

// Library is a dependency that is at home in some rooms only.
type Library struct {
	Path  string // import path; may end in "/..."
	Homes []string
	Why   string // half a sentence
}

// Libraries returns the dependencies that only some rooms may import.
func Libraries() []Library {
	const driver = "rows are reached through the store's interface"
	return []Library{
		{"github.com/cedar-policy/cedar-go/...", []string{"kms/policy", "test/..."}, "its schema validator is experimental: one place changes when it does"},
		{"github.com/danielgtaylor/huma/v2/...", []string{"kms/server", "test/..."}, "its defaults echo rejected values, so that strict decoding is set up in one place"},
		{"modernc.org/sqlite/...", []string{"kms/store/sqlite", "rotate/jobs", "test/..."}, driver},
		{"github.com/riverqueue/...", []string{"rotate/jobs", "test/..."}, "its jobs are hints: nothing but the queue knows that there are any"},
		{"github.com/jackc/pgx/v5/...", []string{"kms/store/postgres/...", "test/..."}, driver},
		{"github.com/anatol/luks.go/...", []string{"unlock/luks", "test/..."}, "it knows no cipher allow-list: only a header that unlock/luks has validated may reach it"},
		{"github.com/aws/...", []string{"clients/awskms", "test/..."}, "who depends on AWS does so by a root that another can replace"},
		{"github.com/miekg/pkcs11/...", []string{"hsm/pkcs11", "test/..."}, "it needs cgo"},
		{"github.com/hashicorp/vault/...", []string{"clients/vault"}, "it reads its own environment variables, and all of it but api and sdk is licensed under the BUSL"},
	}
}

func (l Library) why() string {
	return fmt.Sprintf("%s is at home in %s: %s.", l.Path, strings.Join(l.Homes, ", "), l.Why)
}

// Reach is a rule for everything that a package pulls in, however far away.
type Reach struct {
	From  []string // rooms whose packages it binds
	Ours  []string // what alone of ours they may reach; empty: not limited
	Not   []string // what they must not reach
	NoCgo bool     // nothing but the standard library may need a C compiler
	Why   string
}

// Reaches returns the rules for transitive imports.
func Reaches() []Reach {
	effects := []string{"net/http/...", "net/rpc/...", "os/exec", "database/sql", "plugin"}
	return []Reach{
		{
			From: []string{"cmd/keywright-unlock"},
			Ours: []string{
				"cmd/keywright-unlock/...", "unlock/...", "hsm/tpm",
				"kms/api", "kms/eventlog", "kms/exchange", "kms/keyio", "kms/secret", "kms/claims",
			},
			Not: []string{
				"database/sql", "modernc.org/...", "github.com/jackc/...", "github.com/pressly/goose/...",
				"github.com/riverqueue/...", "github.com/aws/...", "github.com/hashicorp/vault/...",
				"github.com/cedar-policy/...", "github.com/danielgtaylor/huma/...", "github.com/prometheus/...",
			},
			NoCgo: true,
			Why:   "every initramfs carries this binary: it holds the guest's half of the protocol, no part of the service, no database and no cloud client, and no cgo",
		},
		{From: []string{"kms/attest"}, Ours: []string{"kms/attest", "kms/claims", "kms/eventlog", "kms/exchange", "kms/secret"}, Not: effects, Why: "kms/attest: " + whyPure},
		{From: []string{"kms/policy"}, Ours: []string{"kms/policy", "kms/claims"}, Not: effects, Why: "kms/policy: " + whyPure},
		{From: []string{"kms/envelope"}, Ours: []string{"kms/envelope", "kms/secret"}, Not: effects, Why: "kms/envelope: " + whyPure},
		{
			From: []string{"kms/...", "unlock/...", "rotate/...", "clients/...", "hsm/...", "cmd/..."},
			Not:  []string{Module + "/test/..."},
			Why:  "test/ is never shipped: what production needs of it belongs in a room of its own",
		},
	}
}

// binds reports whether the rule is about the package with this import path.
func (r Reach) binds(path string) bool {
	return matchAny(r.From, Short(path))
}

// refuses reports whether the rule forbids reaching the package.
func (r Reach) refuses(path string, p Package) bool {
	if isOurs(path) && len(r.Ours) > 0 && !matchAny(r.Ours, Short(path)) {
		return true
	}
	return matchAny(r.Not, path) || r.NoCgo && p.Cgo && !p.Standard
}

// checkReach returns the shortest forbidden chain to each package that path must
// not reach. A chain ends where it breaks the rule: what lies behind is its consequence.
func checkReach(path string, g Graph) []Violation {
	var found []Violation
	for _, rule := range Reaches() {
		if !rule.binds(path) {
			continue
		}
		for _, arrow := range forbiddenChains(path, g, rule) {
			found = append(found, Violation{arrow, rule.Why + "."})
		}
	}
	return found
}

func forbiddenChains(from string, g Graph, rule Reach) [][]string {
	var found [][]string
	seen := map[string]bool{from: true}
	queue := [][]string{{from}}
	for len(queue) > 0 {
		chain := queue[0]
		queue = queue[1:]
		for _, next := range g[chain[len(chain)-1]].Imports {
			if seen[next] {
				continue
			}
			seen[next] = true
			longer := append(slices.Clip(chain), next)
			if rule.refuses(next, g[next]) {
				found = append(found, longer)
				continue
			}
			queue = append(queue, longer)
		}
	}
	return found
}
