package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of an entry. Lengths are in bytes of UTF-8.
const (
	// MaxEntry bounds an encoded entry. A signed one stays below the 65,535
	// bytes that a C2SP tlog-tiles entry may have.
	MaxEntry = 48 << 10
	// MaxName bounds the ids of actors, objects, policies and facts.
	MaxName = 256
	// MaxWord bounds actions, codes, request ids and release ids.
	MaxWord = 64
	// MaxValue bounds each value of a fact: a kernel command line fits.
	MaxValue = 4096
	// MaxFacts and MaxPolicies bound the two lists.
	MaxFacts    = 64
	MaxPolicies = 32
	// MaxCount is the largest count that every JSON reader holds exactly.
	MaxCount = 1<<53 - 1
)

// ID names one entry: 16 random bytes, independent of its place in the log.
type ID [16]byte

// NewID reads an ID from random.
func NewID(random io.Reader) (ID, error) {
	var id ID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return ID{}, fmt.Errorf("reading an audit entry id: %w", err)
	}
	return id, nil
}

// ParseID parses the 32 lower-case hex digits that [ID.String] returns.
func ParseID(s string) (ID, error) {
	var id ID
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(id) || strings.ToLower(s) != s {
		return ID{}, errors.New("an audit entry id is 32 lower-case hex digits")
	}
	return ID(raw), nil
}

// String returns 32 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ActorKind says what acted.
type ActorKind string

// The kinds of actor.
const (
	ActorMachine  ActorKind = "machine"  // id: machine id, proved by its AK
	ActorOperator ActorKind = "operator" // id: who signed in, or the socket's user
	ActorService  ActorKind = "service"  // id: the part of the service that acted
	ActorSource   ActorKind = "source"   // id: network address of a caller who proved nothing
)

// Actor is who or what caused an entry.
type Actor struct {
	Kind ActorKind
	ID   string
}

// Outcome says how an action ended.
type Outcome string

// The outcomes: a decision is allowed or refused, an act is done or failed.
const (
	Allowed Outcome = "allowed"
	Refused Outcome = "refused"
	Done    Outcome = "done"
	Failed  Outcome = "failed"
)

// Fact is one named fact that mattered: what it was and what it is. An empty
// value says that there was, or is, none.
type Fact struct {
	Name, Was, Is string
}

// Entry is one record of the log. Only what [Entry.Marshal] accepts can be
// signed.
type Entry struct {
	ID ID
	// Time of the event, kept in UTC to the millisecond.
	Time  time.Time
	Actor Actor
	// Action is a dotted name, such as boot.release or machine.approve.
	Action string
	// Object is a reference, such as machine/web-17; empty where there is none.
	Object  string
	Outcome Outcome
	// Code is the short reason that the caller was told; empty where all went well.
	Code string
	// Policies are the ids of the policies that determined the decision; see
	// [BoundPolicies].
	Policies []string
	// Facts are ordered; see [BoundFacts].
	Facts []Fact
	// Request and Release tie the entry to a request and to a released key.
	Request, Release string
	// Count is 1, or the number of events that an aggregate stands for.
	Count int64
}

// check reports the first field that is out of bounds. Errors name the field
// and the rule, never the value: it may come from an unproven caller.
func (e Entry) check() error {
	return errors.Join(
		e.checkScalars(),
		e.checkNames(),
		e.checkLists(),
	)
}

func (e Entry) checkScalars() error {
	switch {
	case e.ID == ID{}:
		return errors.New("id: want 16 random bytes")
	case e.Time.Year() < 1970 || e.Time.Year() > 9999:
		return errors.New("time: want a year from 1970 to 9999")
	case e.Count < 1 || e.Count > MaxCount:
		return fmt.Errorf("count: want 1 to %d", int64(MaxCount))
	}
	switch e.Outcome {
	case Allowed, Refused, Done, Failed:
	default:
		return errors.New("outcome: want allowed, refused, done or failed")
	}
	switch e.Actor.Kind {
	case ActorMachine, ActorOperator, ActorService, ActorSource:
	default:
		return errors.New("actor kind: want machine, operator, service or source")
	}
	return nil
}

func (e Entry) checkNames() error {
	switch {
	case !isAction(e.Action):
		return fmt.Errorf("action: want dotted words of a-z and _, at most %d bytes", MaxWord)
	case !isWord(e.Code, "_"):
		return fmt.Errorf("code: want a-z, 0-9 and _, at most %d bytes", MaxWord)
	case !isWord(strings.ToLower(e.Request), "-_"):
		return fmt.Errorf("request id: want letters, digits, - and _, at most %d bytes", MaxWord)
	case !isWord(strings.ToLower(e.Release), "-_"):
		return fmt.Errorf("release id: want letters, digits, - and _, at most %d bytes", MaxWord)
	case !isName(e.Actor.ID):
		return fmt.Errorf("actor id: want 1 to %d bytes of printable text", MaxName)
	case e.Object != "" && !(isName(e.Object) && strings.Contains(e.Object, "/")):
		return fmt.Errorf("object: want kind/name in at most %d bytes of printable text", MaxName)
	}
	return nil
}

func (e Entry) checkLists() error {
	if len(e.Policies) > MaxPolicies || len(e.Facts) > MaxFacts {
		return fmt.Errorf("lists: want at most %d policies and %d facts", MaxPolicies, MaxFacts)
	}
	for i, id := range e.Policies {
		if !isName(id) {
			return fmt.Errorf("policy %d: want 1 to %d bytes of printable text", i, MaxName)
		}
	}
	for i, f := range e.Facts {
		if !isName(f.Name) {
			return fmt.Errorf("name of fact %d: want 1 to %d bytes of printable text", i, MaxName)
		}
		if !isValue(f.Was) || !isValue(f.Is) {
			return fmt.Errorf("value of fact %d: want at most %d bytes of UTF-8", i, MaxValue)
		}
	}
	return nil
}

func isAction(s string) bool {
	if len(s) > MaxWord || !strings.Contains(s, ".") {
		return false
	}
	for _, word := range strings.Split(s, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return false
		}
	}
	return true
}

// isWord reports whether s, which may be empty, has a-z, 0-9 and extra only.
func isWord(s, extra string) bool {
	return len(s) <= MaxWord && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789"+extra) == ""
}

func isName(s string) bool {
	return s != "" && len(s) <= MaxName && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func isValue(s string) bool {
	return len(s) <= MaxValue && utf8.ValidString(s)
}
