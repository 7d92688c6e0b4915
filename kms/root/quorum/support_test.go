package quorum_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum"
	"keywright.dev/kms/secret"
)

const subject = "keywright/keyring/v1\x00default\x00prod\x003"

// person is a custodian with their identity.
type person struct {
	age.Identity
	name, recipient string
}

func people(t testing.TB, names ...string) []person {
	t.Helper()
	var list []person
	for _, name := range names {
		identity, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		list = append(list, person{identity, name, identity.Recipient().String()})
	}
	return list
}

func quantumPeople(t testing.TB, names ...string) []person {
	t.Helper()
	var list []person
	for _, name := range names {
		identity, err := age.GenerateHybridIdentity()
		require.NoError(t, err)
		list = append(list, person{identity, name, identity.Recipient().String()})
	}
	return list
}

// lines is the file of recipients.
func lines(list []person) string {
	var out bytes.Buffer
	for _, p := range list {
		fmt.Fprintf(&out, "%s # %s\n", p.recipient, p.name)
	}
	return out.String()
}

func recipientsFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "custodians")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func opened(t testing.TB, threshold int, list []person) *quorum.Root {
	t.Helper()
	uri := fmt.Sprintf("age-quorum://%s?threshold=%d", recipientsFile(t, lines(list)), threshold)
	r, err := quorum.Open(t.Context(), uri, rand.Reader)
	require.NoError(t, err)
	return r
}

func key(n int) secret.Bytes {
	return secret.New(bytes.Repeat([]byte{byte(n)}, root.KeySize))
}

// entry wraps key n under a name.
func entry(t testing.TB, r *quorum.Root, name string, n int) quorum.Entry {
	t.Helper()
	context := subject + name
	w, err := r.Wrap(t.Context(), key(n), []byte(context))
	require.NoError(t, err)
	return quorum.Entry{Name: name, Context: []byte(context), Wrapped: w.Ciphertext}
}

func setOf(t testing.TB, e quorum.Entry) quorum.Set {
	t.Helper()
	row, err := quorum.ParseRow(e.Wrapped)
	require.NoError(t, err)
	return row.Set
}

func sets(t testing.TB, entries []quorum.Entry) []quorum.Set {
	var list []quorum.Set
	for _, e := range entries {
		list = append(list, setOf(t, e))
	}
	return list
}

var made = time.Date(2026, 11, 28, 6, 0, 0, 0, time.UTC)

// files exports the entries, by the name of the custodian.
func files(t testing.TB, r *quorum.Root, entries ...quorum.Entry) map[string]string {
	t.Helper()
	list, err := quorum.ShareFiles("https://keywright.example", made, entries)
	require.NoError(t, err)
	texts := make(map[string]string)
	for _, f := range list {
		texts[f.Custodian] = f.Text
	}
	return texts
}

// shares has these people open what they hold of the entries.
func shares(t testing.TB, r *quorum.Root, list []person, entries ...quorum.Entry) []quorum.Given {
	t.Helper()
	texts := files(t, r, entries...)
	var all []quorum.Given
	for _, p := range list {
		given, faults, err := quorum.OpenShares(p.name+".txt", texts[p.name], p)
		require.NoError(t, err)
		require.Empty(t, faults)
		require.Len(t, given, len(entries))
		all = append(all, given...)
	}
	return all
}

func secretOf(b []byte) secret.Bytes { return secret.Copy(b) }
