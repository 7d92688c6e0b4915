package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// prefix starts every encoded entry: the version is in the first bytes.
const prefix = `{"v":1,`

// timeLayout is RFC 3339 in UTC with exactly three digits of a second.
const timeLayout = "2006-01-02T15:04:05.000Z"

// errNotCanonical says that bytes parse but are not the one encoding.
var errNotCanonical = errors.New("not in canonical form")

// Marshal returns the one encoding of the entry: JSON with every field present,
// in the order of docs/formats/audit.md, without white space, with the string
// escapes of RFC 8785. The time is cut to the millisecond.
func (e Entry) Marshal() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("encoding audit entry: %w", err)
	}
	b := e.append(make([]byte, 0, 512))
	if len(b) > MaxEntry {
		return nil, fmt.Errorf("encoding audit entry: %d bytes, want at most %d", len(b), MaxEntry)
	}
	return b, nil
}

// append is written out since the bytes are signed and must stay the same
// whatever the standard library's JSON encoder does in later releases.
func (e Entry) append(b []byte) []byte {
	b = appendField(append(b, prefix...), "id", e.ID.String())
	b = appendField(append(b, ','), "time", e.Time.UTC().Format(timeLayout))
	b = appendField(append(b, `,"actor":{`...), "kind", string(e.Actor.Kind))
	b = appendField(append(b, ','), "id", e.Actor.ID)
	b = appendField(append(b, `},`...), "action", e.Action)
	b = appendField(append(b, ','), "object", e.Object)
	b = appendField(append(b, ','), "outcome", string(e.Outcome))
	b = appendField(append(b, ','), "code", e.Code)
	b = appendList(append(b, `,"policies":`...), e.Policies, appendString)
	b = appendList(append(b, `,"facts":`...), e.Facts, appendFact)
	b = appendField(append(b, ','), "request", e.Request)
	b = appendField(append(b, ','), "release", e.Release)
	b = strconv.AppendInt(append(b, `,"count":`...), e.Count, 10)
	return append(b, '}')
}

func appendFact(b []byte, f Fact) []byte {
	b = appendField(append(b, '{'), "name", f.Name)
	b = appendField(append(b, ','), "was", f.Was)
	b = appendField(append(b, ','), "is", f.Is)
	return append(b, '}')
}

func appendList[T any](b []byte, list []T, item func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, v)
	}
	return append(b, ']')
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(append(b, '"'), name...), `":`...)
	return appendString(b, value)
}

// appendString escapes as RFC 8785 section 3.2.2.2 says; s is valid UTF-8.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		b = appendEscaped(b, s[i])
	}
	return append(b, '"')
}

func appendEscaped(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\t':
		return append(b, `\t`...)
	case '\n':
		return append(b, `\n`...)
	case '\f':
		return append(b, `\f`...)
	case '\r':
		return append(b, `\r`...)
	}
	if c < 0x20 {
		const hexDigits = "0123456789abcdef"
		return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
	}
	return append(b, c)
}

// wireEntry is the shape that [ParseEntry] reads.
type wireEntry struct {
	V     int       `json:"v"`
	ID    string    `json:"id"`
	Time  string    `json:"time"`
	Actor wireActor `json:"actor"`

	Action   string     `json:"action"`
	Object   string     `json:"object"`
	Outcome  Outcome    `json:"outcome"`
	Code     string     `json:"code"`
	Policies []string   `json:"policies"`
	Facts    []wireFact `json:"facts"`
	Request  string     `json:"request"`
	Release  string     `json:"release"`
	Count    int64      `json:"count"`
}

type wireActor struct {
	Kind ActorKind `json:"kind"`
	ID   string    `json:"id"`
}

type wireFact struct {
	Name string `json:"name"`
	Was  string `json:"was"`
	Is   string `json:"is"`
}

// ParseEntry parses what [Entry.Marshal] returned and refuses everything else:
// another version, unknown or repeated fields, other spacing or escapes, and
// values out of bounds. Empty lists come back nil.
func ParseEntry(b []byte) (Entry, error) {
	e, err := parseEntry(b)
	if err != nil {
		return Entry{}, fmt.Errorf("parsing audit entry: %w", err)
	}
	return e, nil
}

func parseEntry(b []byte) (Entry, error) {
	if len(b) > MaxEntry {
		return Entry{}, fmt.Errorf("%d bytes, want at most %d", len(b), MaxEntry)
	}
	if !bytes.HasPrefix(b, []byte(prefix)) {
		return Entry{}, fmt.Errorf("it does not start with %s: not an entry of version 1", prefix)
	}
	var w wireEntry
	// The cause would echo the input, which is not to be trusted.
	if json.Unmarshal(b, &w) != nil {
		return Entry{}, errors.New("not well-formed JSON of an entry's shape")
	}
	e, err := w.entry()
	if err != nil {
		return Entry{}, err
	}
	if err := e.check(); err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(e.append(make([]byte, 0, len(b))), b) {
		return Entry{}, errNotCanonical
	}
	return e, nil
}

func (w wireEntry) entry() (Entry, error) {
	id, err := ParseID(w.ID)
	if err != nil {
		return Entry{}, err
	}
	at, err := time.Parse(timeLayout, w.Time)
	if err != nil {
		return Entry{}, errors.New("time: want UTC as 2006-01-02T15:04:05.000Z")
	}
	e := Entry{
		ID: id, Time: at, Actor: Actor(w.Actor), Action: w.Action, Object: w.Object,
		Outcome: w.Outcome, Code: w.Code, Request: w.Request, Release: w.Release, Count: w.Count,
	}
	if len(w.Policies) > 0 {
		e.Policies = w.Policies
	}
	for _, f := range w.Facts {
		e.Facts = append(e.Facts, Fact(f))
	}
	return e, nil
}
