package audit_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/audit"
)

func TestEntryComesBackAsItWas(t *testing.T) {
	full := entryN(1)
	full.Facts = append(full.Facts, audit.Fact{Name: "π <&>", Was: "\x00\x1f\b\f\n\r\t\"\\\u2028\x7f", Is: ""})
	full.Count = audit.MaxCount
	bare := audit.Entry{
		ID: full.ID, Time: time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), Action: "server.start",
		Actor: audit.Actor{Kind: audit.ActorService, ID: "server"}, Outcome: audit.Done, Count: 1,
	}
	for _, want := range []audit.Entry{full, bare} {
		b, err := want.Marshal()
		require.NoError(t, err)
		assert.True(t, json.Valid(b), "%s", b)
		got, err := audit.ParseEntry(b)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

func TestEntryTimeIsCutToTheMillisecondInUTC(t *testing.T) {
	e := entryN(0)
	e.Time = time.Date(2026, 1, 2, 3, 4, 5, 999_999_999, time.FixedZone("", 3600))
	b, err := e.Marshal()
	require.NoError(t, err)
	assert.Contains(t, string(b), `"time":"2026-01-02T02:04:05.999Z"`)
}

// vector is one entry of testdata/entry-vectors.json, which
// docs/formats/audit.md prints: bytes, and what a reader says of them.
type vector struct {
	Name  string `json:"name"`
	Entry string `json:"entry"`
	Error string `json:"error"` // empty: it parses and re-marshals to the same
}

func readVectors(tb testing.TB) []vector {
	tb.Helper()
	raw, err := os.ReadFile("testdata/entry-vectors.json")
	require.NoError(tb, err)
	var vectors []vector
	require.NoError(tb, json.Unmarshal(raw, &vectors))
	require.NotEmpty(tb, vectors)
	return vectors
}

func TestEntryVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			e, err := audit.ParseEntry([]byte(v.Entry))
			if v.Error != "" {
				require.ErrorContains(t, err, v.Error)
				return
			}
			require.NoError(t, err)
			b, err := e.Marshal()
			require.NoError(t, err)
			assert.Equal(t, v.Entry, string(b))
		})
	}
}

func TestEntryOutOfBoundsIsRefused(t *testing.T) {
	long := strings.Repeat("a", audit.MaxName+1)
	for name, change := range map[string]func(*audit.Entry){
		"id: ":              func(e *audit.Entry) { e.ID = audit.ID{} },
		"time: ":            func(e *audit.Entry) { e.Time = time.Time{} },
		"count: ":           func(e *audit.Entry) { e.Count = 0 },
		"count: want":       func(e *audit.Entry) { e.Count = audit.MaxCount + 1 },
		"outcome: ":         func(e *audit.Entry) { e.Outcome = "maybe" },
		"actor kind: ":      func(e *audit.Entry) { e.Actor.Kind = "god" },
		"actor id: ":        func(e *audit.Entry) { e.Actor.ID = "" },
		"actor id: want":    func(e *audit.Entry) { e.Actor.ID = "a\x1b[31m" },
		"action: ":          func(e *audit.Entry) { e.Action = "boot" },
		"action: want":      func(e *audit.Entry) { e.Action = "boot..release" },
		"action: want do":   func(e *audit.Entry) { e.Action = "boot." + long },
		"object: ":          func(e *audit.Entry) { e.Object = "web-17" },
		"object: want":      func(e *audit.Entry) { e.Object = "machine/" + long },
		"code: ":            func(e *audit.Entry) { e.Code = "no way" },
		"request id: ":      func(e *audit.Entry) { e.Request = "r 1" },
		"release id: ":      func(e *audit.Entry) { e.Release = strings.Repeat("r", audit.MaxWord+1) },
		"policy 0: ":        func(e *audit.Entry) { e.Policies = []string{""} },
		"lists: ":           func(e *audit.Entry) { e.Policies = make([]string, audit.MaxPolicies+1) },
		"lists: want":       func(e *audit.Entry) { e.Facts = make([]audit.Fact, audit.MaxFacts+1) },
		"name of fact 0: ":  func(e *audit.Entry) { e.Facts = []audit.Fact{{Name: long}} },
		"value of fact 0: ": func(e *audit.Entry) { e.Facts[0].Is = "\xff" },
		"value of fact 0: w": func(e *audit.Entry) {
			e.Facts[0].Was = strings.Repeat("a", audit.MaxValue+1)
		},
		"bytes, want at most": func(e *audit.Entry) {
			e.Facts = make([]audit.Fact, audit.MaxFacts)
			for i := range e.Facts {
				e.Facts[i] = audit.Fact{Name: "n", Is: strings.Repeat("a", audit.MaxValue)}
			}
		},
	} {
		e := entryN(0)
		change(&e)
		_, err := e.Marshal()
		assert.ErrorContains(t, err, name)
	}
}

func TestBoundFactsAlwaysFitsAnEntry(t *testing.T) {
	worst := audit.Fact{
		Name: strings.Repeat("\x01\xff", audit.MaxName),
		Was:  strings.Repeat("\x01", 2*audit.MaxValue),
		Is:   strings.Repeat("é", audit.MaxValue),
	}
	for _, n := range []int{0, 1, 2, audit.MaxFacts, audit.MaxFacts + 1, 1000} {
		e := entryN(0)
		e.Facts = nil
		for range n {
			e.Facts = append(e.Facts, worst)
		}
		e.Facts = audit.BoundFacts(e.Facts)
		_, err := e.Marshal()
		require.NoError(t, err, "%d facts", n)
	}
}

func TestBoundFactsKeepsWhatFitsAndCountsTheRest(t *testing.T) {
	plain := []audit.Fact{{Name: "a", Was: "1", Is: "2"}, {Name: "b"}}
	assert.Equal(t, plain, audit.BoundFacts(plain))

	many := make([]audit.Fact, audit.MaxFacts+10)
	for i := range many {
		many[i].Name = "n"
	}
	bounded := audit.BoundFacts(many)
	require.Len(t, bounded, audit.MaxFacts)
	assert.Equal(t, audit.Fact{Name: "(omitted)", Is: "11"}, bounded[audit.MaxFacts-1])
	assert.Len(t, audit.BoundFacts(many[:audit.MaxFacts]), audit.MaxFacts)

	odd := audit.BoundFacts([]audit.Fact{{Name: "\x1b", Is: "\xff" + strings.Repeat("é", audit.MaxValue)}})[0]
	assert.Equal(t, "\uFFFD", odd.Name)
	assert.True(t, strings.HasPrefix(odd.Is, "\uFFFDé"))
	assert.True(t, strings.HasSuffix(odd.Is, "é…"))
	assert.LessOrEqual(t, len(odd.Is), audit.MaxValue)
}

func TestBoundPoliciesAlwaysFitsAnEntry(t *testing.T) {
	var ids []string
	for n := range 256 {
		e := entryN(0)
		e.Policies = audit.BoundPolicies(ids)
		_, err := e.Marshal()
		require.NoError(t, err, "%d policies", n)
		ids = append(ids, strings.Repeat("p", 60)+strconv.Itoa(n))
	}
	bounded := audit.BoundPolicies(ids)
	require.Len(t, bounded, audit.MaxPolicies)
	assert.Equal(t, ids[:audit.MaxPolicies-1], bounded[:audit.MaxPolicies-1])
	assert.Equal(t, "(omitted) 225", bounded[audit.MaxPolicies-1])
	assert.Equal(t, strings.Repeat("p", 60)+"31", ids[audit.MaxPolicies-1], "the caller's list is as it was")
	assert.Len(t, audit.BoundPolicies(ids[:audit.MaxPolicies]), audit.MaxPolicies)
}

// TestEntryHasNoFieldForASecret walks the type: strings of bounded shape, fixed
// arrays, numbers and times only; nothing that could carry bytes or any type.
func TestEntryHasNoFieldForASecret(t *testing.T) {
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		switch {
		case typ == reflect.TypeFor[time.Time](), typ == reflect.TypeFor[audit.ID]():
		case typ.Kind() == reflect.Struct:
			for i := range typ.NumField() {
				walk(path+"."+typ.Field(i).Name, typ.Field(i).Type)
			}
		case typ.Kind() == reflect.Slice && typ.Elem().Kind() != reflect.Uint8:
			walk(path+"[]", typ.Elem())
		default:
			assert.Contains(t, []reflect.Kind{reflect.String, reflect.Int64}, typ.Kind(), path)
		}
	}
	walk("Entry", reflect.TypeFor[audit.Entry]())
}

func TestID(t *testing.T) {
	id, err := audit.NewID(rand.Reader)
	require.NoError(t, err)
	back, err := audit.ParseID(id.String())
	require.NoError(t, err)
	assert.Equal(t, id, back)

	_, err = audit.NewID(iotest.ErrReader(errors.New("no entropy")))
	require.ErrorContains(t, err, "no entropy")
	for _, bad := range []string{"", "00", strings.Repeat("0", 34), strings.Repeat("A", 32), strings.Repeat("g", 32)} {
		_, err := audit.ParseID(bad)
		assert.Error(t, err, bad)
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add([]byte(v.Entry))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := audit.ParseEntry(b)
		if err != nil {
			return
		}
		back, err := e.Marshal()
		require.NoError(t, err)
		assert.True(t, bytes.Equal(b, back), "%q became %q", b, back)
	})
}
