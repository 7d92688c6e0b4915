// Package roottest is the suite that every root of trust passes, against the
// real thing that it stands in front of or against the closest that can run.
//
// It refuses to know any root: what it cannot do by the interface alone, such as
// taking the counterpart away, its subject tells it.
package roottest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Subject is a root under test, with its counterpart.
type Subject struct {
	Root root.Root
	// Again opens the same root anew, as a restarted service does.
	Again func(t testing.TB) root.Root
	// Other returns a root of the same kind with another key.
	Other func(t testing.TB) root.Root

	// Down takes the counterpart away, so that it does not answer, and Up brings
	// it back. Nil for a root that has none.
	Down, Up func(t testing.TB)
	// Slow has the counterpart take so long for each answer; zero ends it. Nil
	// where it cannot.
	Slow func(t testing.TB, d time.Duration)
	// Throttle has the counterpart say of the next n calls that there are too many;
	// the root is expected to try again by itself. Nil where it never says so.
	Throttle func(t testing.TB, n int)
	// Rotate gives the root's key a new version. Nil where it has none.
	Rotate func(t testing.TB)
	// Forbid withdraws our permission. Nil where there is none to withdraw.
	Forbid func(t testing.TB)
}

// patience bounds a call that is expected to succeed.
const patience = 30 * time.Second

// Run runs the suite. Each test has a subject of its own.
func Run(t *testing.T, start func(t *testing.T) Subject) {
	for _, c := range []struct {
		name  string
		needs func(Subject) bool
		test  func(*testing.T, Subject)
	}{
		{"OpensAfterARestart", always, testRestart},
		{"NamesItself", always, testName},
		{"Attack21OtherContext", always, testOtherContext},
		{"RefusesWhatWasAltered", always, testAltered},
		{"RefusesWhatAnotherKeyWrapped", always, testOtherKey},
		{"WrapsEachTimeAnew", always, testAnew},
		{"ServesSeveralAtOnce", always, testConcurrent},
		{"EndsWithItsContext", always, testCancelled},
		{"Down", func(s Subject) bool { return s.Down != nil }, testDown},
		{"Slow", func(s Subject) bool { return s.Slow != nil }, testSlow},
		{"Throttled", func(s Subject) bool { return s.Throttle != nil }, testThrottled},
		{"ThrottledForGood", func(s Subject) bool { return s.Throttle != nil }, testThrottledForGood},
		{"Rotated", func(s Subject) bool { return s.Rotate != nil }, testRotated},
		{"Forbidden", func(s Subject) bool { return s.Forbid != nil }, testForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			if s := start(t); c.needs(s) {
				c.test(t, s)
			}
		})
	}
}

func always(Subject) bool { return true }

// Key returns a key that tests wrap, another one for each number.
func Key(n int) secret.Bytes {
	return secret.New(bytes.Repeat([]byte{byte(n)}, root.KeySize))
}

func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func wrap(t testing.TB, r root.Root, key secret.Bytes, context string) root.Wrapped {
	t.Helper()
	w, err := r.Wrap(limited(t), key, []byte(context))
	require.NoError(t, err)
	require.NotEmpty(t, w.Ciphertext)
	require.LessOrEqual(t, len(w.Ciphertext), root.MaxWrapped)
	return w
}

func opens(t testing.TB, r root.Root, w root.Wrapped, context string, key secret.Bytes) {
	t.Helper()
	got, err := r.Unwrap(limited(t), w.Ciphertext, []byte(context))
	require.NoError(t, err)
	require.True(t, key.Equal(got), "it opens to another key")
}

func refuses(t testing.TB, r root.Root, ciphertext []byte, context string, key secret.Bytes) {
	t.Helper()
	got, err := r.Unwrap(limited(t), ciphertext, []byte(context))
	require.ErrorIs(t, err, root.ErrDoesNotOpen)
	require.NotErrorIs(t, err, root.ErrUnavailable)
	require.Zero(t, got.Len())
	tellsNothing(t, err, key)
}

func tellsNothing(t testing.TB, err error, key secret.Bytes) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	for _, shown := range []string{hex.EncodeToString(key.Expose()), base64.StdEncoding.EncodeToString(key.Expose()), string(key.Expose())} {
		require.NotContains(t, text, shown)
	}
}

func testRestart(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "keyring/a@1")
	opens(t, s.Root, w, "keyring/a@1", Key(1))
	opens(t, s.Again(t), w, "keyring/a@1", Key(1))
	opens(t, s.Root, wrap(t, s.Again(t), Key(2), ""), "", Key(2))
}

func testName(t *testing.T, s Subject) {
	assert.Regexp(t, `^[a-z0-9-]+:.+`, s.Root.URI())
	assert.Equal(t, s.Root.URI(), s.Again(t).URI())
	assert.NotEqual(t, s.Root.URI(), s.Other(t).URI())
	version, err := s.Root.Version(limited(t))
	require.NoError(t, err)
	assert.Equal(t, version, wrap(t, s.Root, Key(1), "c").Version)
}

func testOtherContext(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "keyring/a@1")
	for _, other := range []string{"", "keyring/b@1", "keyring/a@2", "keyring/a@1 ", "KEYRING/A@1", "keyring/a@1\x00"} {
		refuses(t, s.Root, w.Ciphertext, other, Key(1))
	}
	opens(t, s.Root, w, "keyring/a@1", Key(1))
}

// altered returns the ciphertext cut off, prolonged, and with a bit turned over in
// places all over it.
func altered(ciphertext []byte) [][]byte {
	n := len(ciphertext)
	list := [][]byte{nil, ciphertext[:1], ciphertext[:n/2], ciphertext[:n-1], append(slices.Clone(ciphertext), 0)}
	for i := 0; i < n; i += 1 + n/24 {
		turned := slices.Clone(ciphertext)
		turned[i] ^= 1
		list = append(list, turned)
	}
	return list
}

func testAltered(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "c")
	for _, ciphertext := range altered(w.Ciphertext) {
		refuses(t, s.Root, ciphertext, "c", Key(1))
	}
	for _, ciphertext := range []string{"\x00", "vault:v1:", "no ciphertext", string(make([]byte, root.MaxWrapped+1))} {
		refuses(t, s.Root, []byte(ciphertext), "c", Key(1))
	}
	opens(t, s.Root, w, "c", Key(1))
}

func testOtherKey(t *testing.T, s Subject) {
	refuses(t, s.Root, wrap(t, s.Other(t), Key(1), "c").Ciphertext, "c", Key(1))
}

func testAnew(t *testing.T, s Subject) {
	first, second := wrap(t, s.Root, Key(1), "c"), wrap(t, s.Root, Key(1), "c")
	assert.NotEqual(t, first.Ciphertext, second.Ciphertext)
	assert.False(t, bytes.Contains(first.Ciphertext, Key(1).Expose()[:8]))
}

func testConcurrent(t *testing.T, s Subject) {
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			context := fmt.Sprintf("keyring/a@%d", n)
			w, err := s.Root.Wrap(limited(t), Key(n), []byte(context))
			if !assert.NoError(t, err) {
				return
			}
			got, err := s.Root.Unwrap(limited(t), w.Ciphertext, []byte(context))
			if assert.NoError(t, err) {
				assert.True(t, Key(n).Equal(got))
			}
		})
	}
	group.Wait()
}

func testCancelled(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "c")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Root.Unwrap(ctx, w.Ciphertext, []byte("c"))
	require.ErrorIs(t, err, root.ErrUnavailable)
	_, err = s.Root.Wrap(ctx, Key(1), []byte("c"))
	require.ErrorIs(t, err, root.ErrUnavailable)
	opens(t, s.Root, w, "c", Key(1))
}
