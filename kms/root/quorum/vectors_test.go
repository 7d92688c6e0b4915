package quorum

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum/shamir"
	"keywright.dev/kms/secret"
)

var update = flag.Bool("update", false, "make testdata/vectors.json anew")

//go:embed testdata/vectors.json
var vectorsJSON []byte

// vectors hold bytes in hex.
type vectors struct {
	Shares []shareVector
	Rows   []rowVector
}

// shareVector is what Combine makes of shares, as they are inside the age files.
type shareVector struct {
	Name string
	// Class is ok; malformed, wrong or foreign for a share of no use; few or open
	// for a set that gives no key.
	Class  string
	Says   string   `json:",omitempty"`
	Wanted []string `json:",omitempty"` // sets
	Given  []string // shares
	Key    string   `json:",omitempty"`
	Check  string   `json:",omitempty"`
}

// rowVector is a wrapper with what it is held against.
type rowVector struct {
	Name       string
	Class      string // ok, malformed, altered
	Row        string
	Context    string
	Key        string
	Identities []string `json:",omitempty"` // open the shares, in their order
}

func loadVectors(t testing.TB) vectors {
	t.Helper()
	var v vectors
	require.NoError(t, json.Unmarshal(vectorsJSON, &v))
	require.NotEmpty(t, v.Shares)
	require.NotEmpty(t, v.Rows)
	return v
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	require.NoError(t, err)
	return data
}

func TestShareVectors(t *testing.T) {
	classes := make(map[string]int)
	for _, v := range loadVectors(t).Shares {
		t.Run(v.Name, func(t *testing.T) { v.hold(t) })
		classes[v.Class]++
	}
	for _, class := range []string{"ok", "malformed", "wrong", "foreign", "few", "open"} {
		assert.Positive(t, classes[class], class)
	}
}

func (v shareVector) hold(t *testing.T) {
	var wanted []Set
	for _, text := range v.Wanted {
		set, err := parseSet(unhex(t, text))
		require.NoError(t, err)
		wanted = append(wanted, set)
	}
	var given []Given
	for _, text := range v.Given {
		given = append(given, Given{"a file", secret.New(unhex(t, text))})
	}
	out := Combine(wanted, given)
	switch v.Class {
	case "ok":
		require.Len(t, out.Recovered, 1)
		require.Empty(t, out.Failed)
		require.Empty(t, out.Faults)
		assert.Equal(t, v.Key, hex.EncodeToString(out.Recovered[0].Key.Expose()))
		check, err := CheckValue(out.Recovered[0].Key, out.Recovered[0].Set.Context)
		require.NoError(t, err)
		assert.Equal(t, v.Check, check)
	case "few", "open":
		require.Empty(t, out.Recovered)
		require.NotEmpty(t, out.Failed)
		require.ErrorContains(t, out.Failed[0], v.Says)
		assert.Equal(t, v.Class == "few", errors.Is(out.Failed[0], ErrTooFew))
		assert.Equal(t, v.Class == "open", errors.Is(out.Failed[0], root.ErrDoesNotOpen))
	default:
		class := map[string]error{"malformed": ErrMalformed, "wrong": ErrWrong, "foreign": ErrForeign}[v.Class]
		require.Error(t, class)
		require.Empty(t, out.Recovered)
		require.Len(t, out.Faults, 1)
		require.ErrorIs(t, out.Faults[0], class)
		require.ErrorIs(t, out.Faults[0], root.ErrDoesNotOpen)
		require.ErrorContains(t, out.Faults[0], v.Says)
	}
}

func TestRowVectors(t *testing.T) {
	classes := make(map[string]int)
	for _, v := range loadVectors(t).Rows {
		t.Run(v.Name, func(t *testing.T) { v.hold(t) })
		classes[v.Class]++
	}
	for _, class := range []string{"ok", "malformed", "altered"} {
		assert.Positive(t, classes[class], class)
	}
}

func (v rowVector) hold(t *testing.T) {
	key, context := secret.New(unhex(t, v.Key)), unhex(t, v.Context)
	row, err := ParseRow(unhex(t, v.Row))
	if v.Class == "malformed" {
		require.ErrorIs(t, err, ErrMalformed)
		return
	}
	require.NoError(t, err)
	err = row.Verify(key, context)
	if v.Class == "altered" {
		require.ErrorIs(t, err, ErrAltered)
		return
	}
	require.NoError(t, err)
	again, err := row.encode(key)
	require.NoError(t, err)
	assert.Equal(t, v.Row, hex.EncodeToString(again))
	require.Len(t, v.Identities, len(row.Set.Custodians))
	var given []Given
	for i, text := range v.Identities {
		identities, err := ParseIdentities(secret.Copy([]byte(text)))
		require.NoError(t, err)
		data, err := decrypt(row.sealed[i], maxShare, identities...)
		require.NoError(t, err)
		given = append(given, Given{row.Set.Custodians[i], data})
	}
	out := Combine([]Set{row.Set}, given[:row.Set.Threshold])
	require.Len(t, out.Recovered, 1)
	assert.True(t, key.Equal(out.Recovered[0].Key))
}

// counting is a source of bytes that is the same each time.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n = c.n*5 + 17
		p[i] = c.n
	}
	return len(p), nil
}

// TestMakeVectors makes the file anew, where it is told to.
func TestMakeVectors(t *testing.T) {
	if !*update {
		return
	}
	text, err := json.MarshalIndent(vectors{shareVectors(t), rowVectors(t)}, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll("testdata", 0o755))
	require.NoError(t, os.WriteFile(filepath.Join("testdata", "vectors.json"), append(text, '\n'), 0o644))
}

const vectorContext = "keywright/keyring/v1\x00default\x00prod\x003"

func vectorKey() secret.Bytes {
	key := make([]byte, root.KeySize)
	for i := range key {
		key[i] = byte(i)
	}
	return secret.New(key)
}

func vectorSet() Set {
	return Set{
		Quorum: Scheme + ":000102030405060708090a0b0c0d0e0f", Context: []byte(vectorContext),
		Threshold: 2, Custodians: []string{"Alice", "Bob", "Carol"},
	}
}

func goodPayload(t testing.TB, random io.Reader) []byte {
	payload, err := newPayload(random, vectorKey(), []byte(vectorContext))
	require.NoError(t, err)
	return payload.Expose()
}

// forged is a set that was dealt wrongly, with what nobody checked.
type forged struct {
	set    Set
	parts  []shamir.Share
	shares []string
}

func forge(t testing.TB, set Set, payload []byte, change func(*Set)) forged {
	t.Helper()
	parts, err := shamir.Split(&counting{}, secret.Copy(payload), 2, 3)
	require.NoError(t, err)
	set.commitment = commitmentTo(payload)
	for _, p := range parts {
		set.digests = append(set.digests, digestOf(int(p.Number), p.Value.Expose()))
	}
	if change != nil {
		change(&set)
	}
	require.NoError(t, set.encode())
	f := forged{set: set, parts: parts}
	for _, p := range parts {
		f.shares = append(f.shares, f.share(int(p.Number), p.Value.Expose()))
	}
	return f
}

func (f forged) share(number int, value []byte) string {
	return hex.EncodeToString(encodeShare(f.set, number, secret.Copy(value)).Expose())
}

func changed(data []byte, change func([]byte)) []byte {
	data = bytes.Clone(data)
	change(data)
	return data
}

func shareVectors(t *testing.T) []shareVector {
	payload := goodPayload(t, &counting{})
	good := forge(t, vectorSet(), payload, nil)
	key := hex.EncodeToString(vectorKey().Expose())
	check, err := CheckValue(vectorKey(), []byte(vectorContext))
	require.NoError(t, err)
	ok := func(name string, given ...string) shareVector {
		return shareVector{Name: name, Class: "ok", Given: given, Key: key, Check: check}
	}
	list := []shareVector{
		ok("shares 1 and 2", good.shares[0], good.shares[1]),
		ok("shares 3 and 1", good.shares[2], good.shares[0]),
		ok("all, one of them twice", good.shares[1], good.shares[0], good.shares[1], good.shares[2]),
		{Name: "one share", Class: "few", Says: `1 of 2 needed; given by "Bob"; missing of "Alice", "Carol"`, Given: good.shares[1:2]},
		{Name: "one share twice", Class: "few", Says: `given by "Bob"`, Given: []string{good.shares[1], good.shares[1]}},
		{Name: "no share of what is wanted", Class: "few", Says: "given by nobody", Wanted: []string{hex.EncodeToString(good.set.encoded)}},
	}
	list = append(list, malformedShares(t, good, payload)...)
	list = append(list, wrongShares(t, good, payload)...)
	return append(list, wrongPayloads(t, payload)...)
}

func malformedShares(t *testing.T, good forged, payload []byte) []shareVector {
	whole := unhex(t, good.shares[0])
	sealed := func(body []byte) string { return hex.EncodeToString(append(bytes.Clone(body), checksum(body)...)) }
	body := whole[:len(whole)-sumSize]
	shares := map[string]string{
		"empty":                      "",
		"the checksum alone":         sealed(nil),
		"text":                       hex.EncodeToString([]byte("my share: 1234 5678 9012 3456")),
		"cut off":                    hex.EncodeToString(whole[:len(whole)-1]),
		"prolonged":                  hex.EncodeToString(append(bytes.Clone(whole), 0)),
		"prolonged, checksum fits":   sealed(append(bytes.Clone(body), 0)),
		"a bit of the value flipped": hex.EncodeToString(changed(whole, func(d []byte) { d[len(d)-20] ^= 1 })),
		"a bit of the set flipped":   hex.EncodeToString(changed(whole, func(d []byte) { d[60] ^= 1 })),
		"another version":            sealed(changed(body, func(d []byte) { d[1+len(shareLabel)] = '2' })),
		"number 0":                   good.share(0, good.parts[0].Value.Expose()),
		"number 4 of 3":              good.share(4, good.parts[0].Value.Expose()),
		"a value too short":          good.share(1, good.parts[0].Value.Expose()[1:]),
		"far too long":               sealed(make([]byte, maxShare)),
	}
	for name, change := range map[string]func(*Set){
		"threshold 0":               func(s *Set) { s.Threshold = 0 },
		"threshold 4 of 3":          func(s *Set) { s.Threshold = 4 },
		"threshold 1 of 3":          func(s *Set) { s.Threshold = 1 },
		"two of one name":           func(s *Set) { s.Custodians = []string{"Alice", "Bob", "Bob"} },
		"a name on two lines":       func(s *Set) { s.Custodians = []string{"Alice", "Bob\n", "Carol"} },
		"no name":                   func(s *Set) { s.Custodians = []string{"Alice", "", "Carol"} },
		"another root":              func(s *Set) { s.Quorum = "file:000102030405060708090a0b0c0d0e0f" },
		"a context over the bounds": func(s *Set) { s.Context = make([]byte, MaxContext+1) },
		"17 custodians": func(s *Set) {
			s.Custodians, s.digests = strings.Split("abcdefghijklmnopq", ""), make([]digest, 17)
		},
	} {
		shares["a set with "+name] = forge(t, vectorSet(), payload, change).shares[0]
	}
	var list []shareVector
	for name, data := range shares {
		list = append(list, shareVector{Name: "malformed: " + name, Class: "malformed", Given: []string{data}})
	}
	slices.SortFunc(list, func(a, b shareVector) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func wrongShares(t *testing.T, good forged, payload []byte) []shareVector {
	other := forge(t, vectorSet(), goodPayload(t, &counting{99}), nil)
	flipped := changed(good.parts[0].Value.Expose(), func(d []byte) { d[40] ^= 0x80 })
	return []shareVector{
		{Name: "another value", Class: "wrong", Says: "of Alice", Given: []string{good.share(1, flipped), good.shares[1]}},
		{Name: "the value of another", Class: "wrong", Says: "of Bob", Given: []string{good.share(2, good.parts[0].Value.Expose())}},
		{Name: "of another set than is wanted", Class: "foreign", Says: "of Carol", Wanted: []string{hex.EncodeToString(good.set.encoded)}, Given: []string{good.shares[0], other.shares[2]}},
		{Name: "of a set with another threshold", Class: "foreign", Says: "of Carol", Wanted: []string{hex.EncodeToString(good.set.encoded)}, Given: []string{good.shares[0], forge(t, vectorSet(), payload, func(s *Set) { s.Threshold = 3 }).shares[2]}},
		{Name: "of two sets", Class: "few", Says: `given by "Alice"; missing of "Bob", "Carol"`, Given: []string{good.shares[0], other.shares[1]}},
		{Name: "two sets with two keys for one context", Class: "open", Says: "holds another key", Given: append(otherKeySet(t).shares[:2:2], good.shares[:2]...)},
	}
}

func otherKeySet(t *testing.T) forged {
	payload, err := newPayload(&counting{}, secret.New(make([]byte, root.KeySize)), []byte(vectorContext))
	require.NoError(t, err)
	return forge(t, vectorSet(), payload.Expose(), nil)
}

func wrongPayloads(t *testing.T, payload []byte) []shareVector {
	keyAt := 1 + blindSize + 2 + len(vectorContext)
	var list []shareVector
	for _, c := range []struct {
		name, says string
		change     func([]byte)
	}{
		{"another version of what was split", "another form or version", func(d []byte) { d[0] = 2 }},
		{"another length of the context", "another context", func(d []byte) { d[1+blindSize+1]++ }},
		{"another context in what was split", "another context", func(d []byte) { d[keyAt-1] = '4' }},
		{"another key than that of the check value", "check value", func(d []byte) { d[keyAt] ^= 1 }},
	} {
		f := forge(t, vectorSet(), changed(payload, c.change), nil)
		list = append(list, shareVector{Name: c.name, Class: "open", Says: c.says, Given: f.shares[:2]})
	}
	f := forge(t, vectorSet(), payload, func(s *Set) { s.commitment[0] ^= 1 })
	return append(list, shareVector{Name: "another commitment", Class: "open", Says: "something else than was split", Given: f.shares[:2]})
}

func rowVectors(t *testing.T) []rowVector {
	var list []rowVector
	for _, name := range []string{"X25519", "post-quantum"} {
		list = append(list, goodRow(t, name))
	}
	whole := list[0]
	wrapped := unhex(t, whole.Row)
	add := func(name, class string, row []byte) {
		list = append(list, rowVector{Name: name, Class: class, Row: hex.EncodeToString(row), Context: whole.Context, Key: whole.Key})
	}
	add("empty", "malformed", nil)
	add("text", "malformed", []byte("this is no wrapper of a quorum, though it is long enough to be one"))
	add("cut off", "malformed", wrapped[:len(wrapped)-1])
	add("prolonged", "malformed", append(bytes.Clone(wrapped), 0))
	add("another version", "malformed", changed(wrapped, func(d []byte) { d[1+len(rowLabel)] = '2' }))
	add("a bit of the last share flipped", "altered", changed(wrapped, func(d []byte) { d[len(d)-40] ^= 1 }))
	add("a bit of a digest flipped", "altered", changed(wrapped, func(d []byte) { d[250] ^= 1 }))
	add("a bit of the tag flipped", "altered", changed(wrapped, func(d []byte) { d[len(d)-1] ^= 1 }))
	other := whole
	other.Name, other.Class, other.Key, other.Identities = "another key", "altered", strings.Repeat("ff", root.KeySize), nil
	moved := whole
	moved.Name, moved.Class, moved.Identities = "another context", "altered", nil
	moved.Context = hex.EncodeToString([]byte("keywright/keyring/v1\x00default\x00prod\x004"))
	return append(list, other, moved)
}

func goodRow(t *testing.T, kind string) rowVector {
	r := &Root{threshold: 2, random: &counting{}}
	v := rowVector{Name: kind, Class: "ok", Context: hex.EncodeToString([]byte(vectorContext)), Key: hex.EncodeToString(vectorKey().Expose())}
	for _, name := range []string{"Alice", "Bob", "Carol"} {
		identity, recipient := newIdentity(t, kind)
		c, err := parseLine(recipient + " # " + name)
		require.NoError(t, err)
		r.custodians = append(r.custodians, c)
		v.Identities = append(v.Identities, identity)
	}
	r.name = nameOf(2, r.custodians)
	wrapped, err := r.Wrap(t.Context(), vectorKey(), []byte(vectorContext))
	require.NoError(t, err)
	v.Row = hex.EncodeToString(wrapped.Ciphertext)
	return v
}

func newIdentity(t *testing.T, kind string) (identity, recipient string) {
	if kind == "X25519" {
		i, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		return i.String(), i.Recipient().String()
	}
	i, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	return i.String(), i.Recipient().String()
}
