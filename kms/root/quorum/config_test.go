package quorum_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum"
)

func TestOpenRefusesURIs(t *testing.T) {
	path := recipientsFile(t, lines(people(t, "Alice", "Bob", "Carol")))
	for uri, want := range map[string]string{
		"":                                "its scheme is",
		"age-quorum":                      "its scheme is",
		"file://" + path + "?threshold=2": "its scheme is",
		"age-quorum://%zz/x?threshold=2":  "not a URI",
		"age-quorum:" + path[1:] + "?threshold=2":            "not an absolute one",
		"age-quorum://host" + path + "?threshold=2":          "names a host",
		"age-quorum://me@/x?threshold=2":                     "names a host",
		"age-quorum://" + path + "?threshold=2#x":            "a fragment",
		"age-quorum:///?threshold=2":                         "no file by its absolute path",
		"age-quorum://?threshold=2":                          "no file by its absolute path",
		"age-quorum:///etc/../x?threshold=2":                 "not an absolute one",
		"age-quorum://" + path:                               "how many custodians",
		"age-quorum://" + path + "?threshold=2&threshold=3":  "2 times",
		"age-quorum://" + path + "?threshold=two":            "no number",
		"age-quorum://" + path + "?threshold=02":             "no number",
		"age-quorum://" + path + "?threshold=-1":             "no number",
		"age-quorum://" + path + "?threshold=0":              "no number",
		"age-quorum://" + path + "?threshold=2&recipients=x": `unknown key "recipients": known are threshold`,
		"age-quorum://" + path + "?threshold=2;x":            "not key=value",
	} {
		_, err := quorum.Open(t.Context(), uri, rand.Reader)
		require.ErrorContains(t, err, want, uri)
		assert.NotContains(t, err.Error(), "recipients=x", "it repeats nothing: a secret may be in it")
		assert.ErrorContains(t, err, "age-quorum:///etc/keywright/custodians?threshold=2", "it says what a right one looks like")
	}
	for uri, want := range map[string]string{
		"age-quorum://" + path + "?threshold=4":    "want 1 to 3",
		"age-quorum://" + path + "?threshold=1":    "each of them alone",
		"age-quorum:///nowhere/at/all?threshold=2": "no such file",
	} {
		_, err := quorum.Open(t.Context(), uri, rand.Reader)
		require.ErrorContains(t, err, want, uri)
	}
}

func TestOneCustodianAlone(t *testing.T) {
	alice := people(t, "Alice")
	r := opened(t, 1, alice)
	e := entry(t, r, "a", 1)
	out := quorum.Combine(nil, shares(t, r, alice, e))
	require.Len(t, out.Recovered, 1)
	assert.True(t, key(1).Equal(out.Recovered[0].Key))
}

func TestOpenRefusesFiles(t *testing.T) {
	two := people(t, "Alice", "Bob")
	quantum := quantumPeople(t, "Carol")
	identity := "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQ"
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", "0 custodians"},
		"comments alone":   {"# Alice\n\n", "0 custodians"},
		"no recipient":     {lines(two) + "alice # Alice\n", "line 3: this is no recipient"},
		"cut off":          {two[0].recipient[:40] + " # Alice", "line 1: this is no recipient"},
		"cut off, hybrid":  {quantum[0].recipient[:400] + " # Carol", "line 1: this is no recipient"},
		"an SSH key":       {"ssh-ed25519 AAAA # Alice", "line 1: this is no recipient"},
		"an identity":      {lines(two) + identity + " # Alice", "line 3: this is an identity"},
		"nobody's":         {two[0].recipient, "line 1: say behind a #"},
		"no name":          {two[0].recipient + " #  ", "1 to 40 bytes of printable"},
		"a long name":      {two[0].recipient + " # " + strings.Repeat("x", 41), "1 to 40 bytes of printable"},
		"a control":        {two[0].recipient + " # Al\x1bice", "1 to 40 bytes of printable"},
		"no UTF-8":         {two[0].recipient + " # Al\xffice", "1 to 40 bytes of printable"},
		"two of one name":  {two[0].recipient + " # Alice\n" + two[1].recipient + " # Alice\n", `two recipients are named "Alice"`},
		"twice one":        {two[0].recipient + " # Alice\n" + two[0].recipient + " # Bob\n", "who would hold two shares"},
		"both kinds":       {lines(two) + lines(quantum), "want age1… alone or age1pq1… alone"},
		"seventeen":        {strings.Repeat(lines(two[:1]), 17), "17 custodians: want 1 to 16"},
		"far too long":     {strings.Repeat("#", 128<<10+1), "more than 131072 bytes"},
		"a binary":         {"\x7fELF\x00\x01", "line 1: this is no recipient"},
		"windows, no name": {two[0].recipient + "\r\n", "line 1: say behind a #"},
	} {
		_, err := quorum.Open(t.Context(), "age-quorum://"+recipientsFile(t, c.text)+"?threshold=2", rand.Reader)
		require.ErrorContains(t, err, c.want, name)
		assert.NotContains(t, err.Error(), identity, name)
	}
}

func TestOpenRefusesWhatOthersCanWrite(t *testing.T) {
	path := recipientsFile(t, lines(people(t, "Alice", "Bob")))
	uri := "age-quorum://" + path + "?threshold=2"
	for _, mode := range []os.FileMode{0o620, 0o602, 0o666} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := quorum.Open(t.Context(), uri, rand.Reader)
		require.ErrorContains(t, err, "chmod go-w")
	}
	require.NoError(t, os.Chmod(path, 0o644))
	_, err := quorum.Open(t.Context(), uri, rand.Reader)
	require.NoError(t, err, "recipients are no secret")
	_, err = quorum.Open(t.Context(), "age-quorum://"+filepath.Dir(path)+"?threshold=2", rand.Reader)
	require.ErrorContains(t, err, "not a regular file")
}

func TestNameIsThatOfRecipientsAndThreshold(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 2, list)
	renamed := []person{{list[2].Identity, "Zoë in Zürich", list[2].recipient}, list[0], list[1]}
	assert.Equal(t, r.URI(), opened(t, 2, renamed).URI(), "neither order nor names")
	assert.NotEqual(t, r.URI(), opened(t, 3, list).URI())
	assert.NotEqual(t, r.URI(), opened(t, 2, list[:2]).URI())
	assert.Equal(t, 2, r.Threshold())
	assert.ElementsMatch(t, []string{"Alice", "Bob", "Carol"}, r.Custodians())
}

func TestTheLargestQuorumFits(t *testing.T) {
	var names []string
	for c := range quorum.MaxCustodians {
		names = append(names, strings.Repeat(string(rune('a'+c)), 40))
	}
	list := quantumPeople(t, names...)
	r := opened(t, 16, list)
	context := make([]byte, quorum.MaxContext)
	w, err := r.Wrap(t.Context(), key(1), context)
	require.NoError(t, err)
	t.Logf("%d bytes", len(w.Ciphertext))
	require.LessOrEqual(t, len(w.Ciphertext), root.MaxWrapped)
	out := quorum.Combine(nil, shares(t, r, list, quorum.Entry{Name: "a", Context: context, Wrapped: w.Ciphertext}))
	require.Len(t, out.Recovered, 1)

	_, err = r.Wrap(t.Context(), key(1), make([]byte, quorum.MaxContext+1))
	require.ErrorContains(t, err, "want at most 192")
}

func TestWrapRefuses(t *testing.T) {
	list := people(t, "Alice", "Bob")
	_, err := opened(t, 2, list).Wrap(t.Context(), key(1).Clone(), nil)
	require.NoError(t, err)
	short := key(1).Expose()[:31]
	_, err = opened(t, 2, list).Wrap(t.Context(), secretOf(short), nil)
	require.ErrorContains(t, err, "31 bytes instead of 32")

	uri := "age-quorum://" + recipientsFile(t, lines(list)) + "?threshold=2"
	r, err := quorum.Open(t.Context(), uri, iotest.ErrReader(errors.New("no entropy")))
	require.NoError(t, err)
	_, err = r.Wrap(t.Context(), key(1), nil)
	require.ErrorContains(t, err, "no entropy")
}

func FuzzURI(f *testing.F) {
	path := recipientsFile(f, lines(people(f, "Alice", "Bob")))
	for _, seed := range []string{
		"age-quorum:///etc/keywright/custodians?threshold=2", "age-quorum://" + path + "?threshold=2", "age-quorum:x",
		"age-quorum://h/x?threshold=1", "age-quorum:///x?threshold=2&threshold=2", "age-quorum:///x?%", "://", "age-quorum:///..?threshold=9999999999999999999",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		r, err := quorum.Open(t.Context(), uri, rand.Reader)
		if err == nil {
			assert.Regexp(t, `^age-quorum:[0-9a-f]{32}$`, r.URI())
		}
	})
}

func FuzzRecipients(f *testing.F) {
	list := people(f, "Alice", "Bob")
	f.Add(lines(list))
	f.Add(lines(quantumPeople(f, "Carol")))
	f.Add("# nobody\n\n" + list[0].recipient + "#Zoë\r\n")
	f.Add("AGE-SECRET-KEY-1 # x")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "custodians")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		r, err := quorum.Open(t.Context(), "age-quorum://"+path+"?threshold=1", rand.Reader)
		if err != nil {
			return
		}
		_, err = r.Wrap(t.Context(), key(1), nil)
		require.NoError(t, err, "what opens can wrap")
	})
}
