package kms_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite"
)

const lasts = 30 * time.Second

func electorate(t *testing.T) (one, two *kms.Candidate) {
	t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: filepath.Join(t.TempDir(), "store.db")})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	began := time.Now()
	named := func(holder string) *kms.Candidate {
		return &kms.Candidate{Name: "work", Holder: holder, Store: s, Uptime: func() time.Duration { return time.Since(began) }, Lasts: lasts}
	}
	return named("one"), named("two")
}

func stands(t *testing.T, c *kms.Candidate) (epoch uint64, leads bool) {
	t.Helper()
	term, leads, err := c.Stand(context.Background())
	require.NoError(t, err)
	assert.Equal(t, leads, c.Leads())
	return term.Epoch, leads
}

func TestALeaderStaysWhileItRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := electorate(t)
		for range 10 {
			epoch, leads := stands(t, one)
			assert.True(t, leads)
			assert.EqualValues(t, 1, epoch)
			_, leads = stands(t, two)
			assert.False(t, leads)
			time.Sleep(lasts / 3)
		}
	})
}

// A term has ended for its holder before it is taken, by either's own clock.
func TestATermIsTakenOnceItHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := electorate(t)
		stands(t, one)
		time.Sleep(lasts / 2)
		_, leads := stands(t, two)
		require.False(t, leads, "it has not been watched for as long as a term lasts")
		time.Sleep(lasts - time.Millisecond)
		assert.False(t, one.Leads())
		_, leads = stands(t, two)
		require.False(t, leads)
		time.Sleep(time.Millisecond)
		epoch, leads := stands(t, two)
		require.True(t, leads)
		assert.EqualValues(t, 2, epoch)
		_, leads = stands(t, one)
		assert.False(t, leads)
	})
}

func TestWhoResignsLetsTheNextInAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := electorate(t)
		require.NoError(t, two.Resign(t.Context()), "it never led")
		stands(t, one)
		stands(t, two)
		require.NoError(t, one.Resign(t.Context()))
		assert.False(t, one.Leads())
		epoch, leads := stands(t, two)
		assert.True(t, leads)
		assert.EqualValues(t, 2, epoch)
		require.NoError(t, one.Resign(t.Context()))
		_, leads = stands(t, two)
		assert.True(t, leads, "nobody gives up what is another's")
	})
}
