package layering

import (
	"fmt"
	"slices"
	"strings"
)

// Room is one row of the table: a package and what it may import of ours.
// Paths are written below the module; a path that ends in "/..." stands for the
// package and all below it.
type Room struct {
	Path   string
	May    []string // what it may import of ours
	Not    []string // what it must not import of others', the standard library included
	OnlyBy []string // who alone may import it; empty: whoever has it in May
	Cgo    bool     // may hold files that need a C compiler
	Why    string   // what breaks when it imports more, as half a sentence
}

const unknownRoom = "This package is in no row of test/layering/rooms.go. Add one that says what it may import of ours and why not more, " +
	"then run `go test ./test/layering -update` to write its depguard rule."

const whyCgo = "cgo stands only in hsm/pkcs11, behind `//go:build cgo` and with a refusing stub: the service is built static, and the guest boots without libc."

// The two ways in which a decision stops being a function of its arguments.
const (
	whyPure = "it is pure (the same arguments give the same answer), and whatever else it could read would be an input that nobody attested"
	whyLeaf = "it is a leaf, so that guest, service and tools can all stand on it"
)

// outside is what a pure room has no business with.
func outside() []string {
	return []string{"net", "net/http", "os", "os/exec", "syscall", "database/sql", "log", "log/slog"}
}

// Rooms returns the table. The longest path that matches a package is its row.
func Rooms() []Room {
	return slices.Concat(kmsRooms(), storeRooms(), rootRooms(), guestRooms(), otherRooms())
}

func kmsRooms() []Room {
	return []Room{
		{Path: "kms/secret", Why: whyLeaf},
		{Path: "kms/claims", Not: outside(), Why: whyLeaf + ", and it holds facts, not where they come from"},
		{Path: "kms/api", May: []string{"kms/exchange", "kms/secret"}, Why: "it is the wire alone: a domain type on it would make every change of the domain a change of the protocol"},
		{Path: "kms/exchange", May: []string{"kms/secret"}, Why: "both ends must agree on it to the byte, so that nothing of either end may be in it"},
		{Path: "kms/keyio", May: []string{"kms/exchange", "kms/secret"}, Why: "the service's command and the guest's read and write the same, and each asks in its own way"},
		{Path: "kms/envelope", May: []string{"kms/secret"}, Not: outside(), Why: whyPure},
		{Path: "kms/recovery", May: []string{"kms/secret"}, Why: "a recovery key must open its volume when all else is gone, and so depends on nothing of it"},
		{Path: "kms/audit", Why: "an entry has no field for a secret or a domain type: what is logged stays verifiable without the service"},
		{Path: "kms/eventlog", Not: outside(), Why: whyLeaf},
		{Path: "kms/attest", May: []string{"kms/claims", "kms/eventlog", "kms/exchange"}, Not: outside(), Why: whyPure},
		{Path: "kms/policy", May: []string{"kms/claims"}, Not: outside(), Why: whyPure},
		{
			Path: "kms",
			May: []string{
				"kms/secret", "kms/claims", "kms/root", "kms/exchange", "kms/envelope",
				"kms/audit", "kms/attest", "kms/policy", "kms/recovery",
			},
			Not: []string{"net/http", "database/sql", "os/exec"},
			Why: "the domain knows neither its listeners nor its rows: it declares the small interfaces that it consumes, and cmd wires them",
		},
		{Path: "kms/pki", May: []string{"kms/secret"}, Why: "certificates know names and keys, not machines"},
		{
			Path: "kms/server",
			May: []string{
				"kms", "kms/api", "kms/audit", "kms/claims", "kms/exchange", "kms/policy", "kms/pki", "kms/root", "kms/secret", "rotate",
			},
			Not: []string{"database/sql"},
			Why: "it turns requests into calls of the domain: what it decided or stored by itself would escape the one transaction of a release",
		},
	}
}

func storeRooms() []Room {
	uses := []string{"kms", "kms/audit", "kms/claims", "rotate"}
	const why = "a store keeps rows and decides nothing: decisions come in as a function"
	const rows = "the shape of the rows is its store's own matter, so that a column can change without the domain hearing of it"
	return []Room{
		{Path: "kms/store/sqlite", May: append(uses[:len(uses):len(uses)], "kms/store/sqlite/sqlitedb"), Why: why},
		{Path: "kms/store/sqlite/sqlitedb", OnlyBy: []string{"kms/store/sqlite"}, Why: rows},
		{Path: "kms/store/postgres", May: append(uses[:len(uses):len(uses)], "kms/store/postgres/pgdb"), Why: why},
		{Path: "kms/store/postgres/pgdb", OnlyBy: []string{"kms/store/postgres"}, Why: rows},
		{
			Path: "kms/store/storetest", May: uses, OnlyBy: []string{"test/..."},
			Why: "the suite that every store passes is linked into tests only, and knows no store",
		},
	}
}

func rootRooms() []Room {
	uses := []string{"kms/root", "kms/secret"}
	const why = "a root wraps and unwraps bytes: it must work the same for every caller, and leave with its vendor"
	return []Room{
		{Path: "kms/root", May: []string{"kms/secret"}, Why: "it says what a root is: one that knew its users could not be replaced"},
		{
			Path: "kms/root/roottest", May: uses, OnlyBy: []string{"test/..."},
			Why: "the suite that every root passes is linked into tests only, and knows no root",
		},
		{Path: "kms/root/local", May: uses, Why: "it is what roots share that read files of the host, and knows none of them"},
		{Path: "kms/root/file", May: append(uses[:len(uses):len(uses)], "kms/root/local"), Why: why},
		{Path: "kms/root/quorum", May: append(uses[:len(uses):len(uses)], "kms/root/local", "kms/root/quorum/shamir"), Why: why},
		{
			Path: "kms/root/quorum/shamir", May: []string{"kms/secret"}, Not: outside(), OnlyBy: []string{"kms/root/quorum"},
			Why: "it is arithmetic: whether shares belong together is the quorum's matter, without which nobody combines any",
		},
		{Path: "hsm/tpm/sealed", May: append(uses[:len(uses):len(uses)], "kms/root/local", "hsm/tpm"), Why: why},
		{Path: "hsm/pkcs11", May: append(uses[:len(uses):len(uses)], "kms/root/local"), Cgo: true, Why: why},
		{Path: "clients/awskms", May: append(uses[:len(uses):len(uses)], "kms/root/local"), Why: why},
		{Path: "clients/...", May: append(uses[:len(uses):len(uses)], "kms/root/local"), Why: why},
		{Path: "clients/vault", May: append(uses[:len(uses):len(uses)], "kms/root/local"), Why: why},
	}
}

func guestRooms() []Room {
	return []Room{
		{Path: "hsm/tpm", May: []string{"kms/exchange", "kms/secret"}, Why: "it is the device: it runs in the guest too and knows nothing of machines or policies"},
		{Path: "unlock/luks", May: []string{"kms/secret"}, Why: "it opens disks with a secret it is given, wherever that came from"},
		{Path: "unlock/predict", May: []string{"kms/claims", "kms/eventlog"}, Why: "it computes claims from files: what the device or the service says belongs to its callers"},
		{
			Path: "unlock",
			May:  []string{"kms/api", "kms/exchange", "kms/secret", "kms/claims", "hsm/tpm", "unlock/..."},
			Why:  "the guest speaks the wire protocol and holds none of the service: it stays small, and a thief who takes it apart finds nothing",
		},
		{Path: "unlock/initramfs", Why: "it is files for the initramfs, embedded"},
	}
}

func otherRooms() []Room {
	return []Room{
		{Path: "rotate", May: []string{"kms", "kms/secret"}, Not: []string{"net/http", "database/sql"}, Why: "the planner is pure and the jobs go through the Store that it declares"},
		{Path: "rotate/jobs", May: []string{"rotate"}, Why: "a job says that a step may be begun, and nothing of what a step is"},
		{Path: "rotate/backup", May: []string{"kms/envelope", "kms/secret", "unlock/luks"}, Why: "a backup must open with its secret alone, when the service is gone"},
		{
			Path: "cmd/...",
			May:  []string{"kms/...", "unlock/...", "rotate/...", "clients/...", "hsm/...", "cmd/..."},
			Why:  "commands wire what is shipped, and nothing of test/ is",
		},
		{
			Path: "test/...",
			May:  []string{"kms/...", "unlock/...", "rotate/...", "clients/...", "hsm/...", "cmd/...", "test/..."},
			Why:  "tests may use everything",
		},
	}
}

// RoomOf returns the row of the package with this import path.
func RoomOf(path string) (Room, bool) {
	var best Room
	for _, room := range Rooms() {
		if match(room.Path, Short(path)) && len(room.Path) > len(best.Path) {
			best = room
		}
	}
	return best, best.Path != ""
}

func (r Room) why() string {
	if len(r.May) == 0 {
		return fmt.Sprintf("%s imports nothing of ours: %s.", r.Path, r.Why)
	}
	return fmt.Sprintf("%s may import %s of ours: %s.", r.Path, strings.Join(r.May, ", "), r.Why)
}

func (r Room) whyOnlyBy() string {
	return fmt.Sprintf("%s is imported by %s and by tests only: %s.", r.Path, strings.Join(r.OnlyBy, ", "), r.Why)
}
