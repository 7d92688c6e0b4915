package roottest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
)

// blink is how long a call may take that is expected to be given up.
const blink = time.Second

// unavailable demands that a call gives up in its time, for a reason that may go.
func unavailable(t testing.TB, call func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), blink)
	defer cancel()
	started := time.Now()
	err := call(ctx)
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.NotErrorIs(t, err, root.ErrDoesNotOpen)
	require.NotErrorIs(t, err, root.ErrRefused)
	assert.Less(t, time.Since(started), patience, "a call ends with its context")
	tellsNothing(t, err, Key(1))
}

func (s Subject) unavailable(t testing.TB, w root.Wrapped) {
	t.Helper()
	unavailable(t, func(ctx context.Context) error {
		_, err := s.Root.Unwrap(ctx, w.Ciphertext, []byte("c"))
		return err
	})
	unavailable(t, func(ctx context.Context) error {
		_, err := s.Root.Wrap(ctx, Key(1), []byte("c"))
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), blink)
	defer cancel()
	if _, err := s.Root.Version(ctx); err != nil { // a root that is not asked knows it still
		require.ErrorIs(t, err, root.ErrUnavailable)
	}
}

func testDown(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "c")
	s.Down(t)
	s.unavailable(t, w)
	s.Up(t)
	opens(t, s.Root, w, "c", Key(1))
	opens(t, s.Root, wrap(t, s.Root, Key(2), "c"), "c", Key(2))
}

func testSlow(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "c")
	s.Slow(t, 10*blink)
	s.unavailable(t, w)
	s.Slow(t, 0)
	opens(t, s.Root, w, "c", Key(1))
}

func testThrottled(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "c")
	s.Throttle(t, 2)
	opens(t, s.Root, w, "c", Key(1))
	s.Throttle(t, 2)
	wrap(t, s.Root, Key(1), "c")
}

func testThrottledForGood(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "c")
	s.Throttle(t, 1<<30)
	s.unavailable(t, w)
	s.Throttle(t, 0)
	opens(t, s.Root, w, "c", Key(1))
}

func testRotated(t *testing.T, s Subject) {
	before := wrap(t, s.Root, Key(1), "c")
	s.Rotate(t)
	opens(t, s.Root, before, "c", Key(1))
	after := wrap(t, s.Root, Key(2), "c")
	opens(t, s.Root, after, "c", Key(2))
	assert.NotEqual(t, before.Version, after.Version)
	version, err := s.Root.Version(limited(t))
	require.NoError(t, err)
	assert.Equal(t, after.Version, version)
	opens(t, s.Again(t), before, "c", Key(1))
}

func testForbidden(t *testing.T, s Subject) {
	w := wrap(t, s.Root, Key(1), "c")
	s.Forbid(t)
	_, err := s.Root.Unwrap(limited(t), w.Ciphertext, []byte("c"))
	require.ErrorIs(t, err, root.ErrRefused)
	require.NotErrorIs(t, err, root.ErrUnavailable)
	_, err = s.Root.Wrap(limited(t), Key(1), []byte("c"))
	require.ErrorIs(t, err, root.ErrRefused)
}
