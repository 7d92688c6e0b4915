package roottest

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Offline is a root under test that wraps by itself and opens with people alone.
type Offline struct {
	Root  root.Root
	Again func(t testing.TB) root.Root // as in Subject
	Other func(t testing.TB) root.Root

	// People opens what Root wrapped as people do, and holds the wrapper against
	// what it opened to.
	People func(ciphertext, context []byte) (secret.Bytes, error)
}

// RunOffline runs the suite of [Run], with people in the place of Unwrap, and
// holds Unwrap to saying that it needs them, at each call.
func RunOffline(t *testing.T, start func(t *testing.T) Offline) {
	Run(t, func(t *testing.T) Subject {
		s := start(t)
		attended := func(r root.Root) root.Root { return attended{r, s.People} }
		return Subject{
			Root:  attended(s.Root),
			Again: func(t testing.TB) root.Root { return attended(s.Again(t)) },
			Other: func(t testing.TB) root.Root { return attended(s.Other(t)) },
		}
	})
	t.Run("NeedsPeople", func(t *testing.T) { testNeedsPeople(t, start(t)) })
}

// attended is a root with its people beside it.
type attended struct {
	root.Root
	people func(ciphertext, context []byte) (secret.Bytes, error)
}

func (a attended) Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	key, err := a.Root.Unwrap(ctx, ciphertext, context)
	if !errors.Is(err, root.ErrNeedsPeople) {
		return key, err
	}
	return a.people(ciphertext, context)
}

func testNeedsPeople(t *testing.T, s Offline) {
	w := wrap(t, s.Root, Key(1), "c")
	for _, ciphertext := range [][]byte{w.Ciphertext, w.Ciphertext[1:], nil} {
		key, err := s.Root.Unwrap(limited(t), ciphertext, []byte("c"))
		require.ErrorIs(t, err, root.ErrNeedsPeople)
		require.ErrorIs(t, err, root.ErrRefused)
		require.NotErrorIs(t, err, root.ErrUnavailable)
		require.NotErrorIs(t, err, root.ErrDoesNotOpen)
		require.Zero(t, key.Len())
	}
	offline, ok := s.Root.(root.Offline)
	require.True(t, ok, "who asks roots must know that this one needs people")
	require.NotEmpty(t, offline.Offline())
	require.NoError(t, offline.Verify(w.Ciphertext, Key(1), []byte("c")))
	for _, err := range []error{
		offline.Verify(w.Ciphertext, Key(2), []byte("c")), offline.Verify(w.Ciphertext, Key(1), []byte("d")),
		offline.Verify(w.Ciphertext[1:], Key(1), []byte("c")), offline.Verify(nil, Key(1), []byte("c")),
	} {
		require.Error(t, err)
		tellsNothing(t, err, Key(1))
	}
}
