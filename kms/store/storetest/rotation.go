package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

func testLeader(t *testing.T, s Store) {
	key := kms.Key{Leader: "work"}
	assert.Nil(t, stateOf(t, s, key).Leader)
	lead := kms.Leadership{Name: "work", Epoch: 1, Holder: "one", Renewals: 7}
	put(t, s, kms.Outcome{Leader: &lead})
	assert.Equal(t, &lead, stateOf(t, s, key).Leader)
	assert.Nil(t, stateOf(t, s, kms.Key{Leader: "other"}).Leader)
	assert.Nil(t, stateOf(t, s, kms.Key{}).Leader)
	lead = kms.Leadership{Name: "work", Epoch: 2}
	put(t, s, kms.Outcome{Leader: &lead})
	assert.Equal(t, &lead, stateOf(t, s, key).Leader, "one row a name")
}

// What a leader of the past wants is neither decided nor written.
func testTerm(t *testing.T, s Store) {
	put(t, s, kms.Outcome{Leader: &kms.Leadership{Name: "work", Epoch: 2, Holder: "two"}})
	write := func(term kms.Term) (decided bool, err error) {
		err = s.Transact(context.Background(), kms.Key{Term: &term}, func(kms.State) (kms.Outcome, error) {
			decided = true
			return kms.Outcome{Run: &kms.RotationRun{ID: fmt.Sprint(term.Epoch)}}, nil
		})
		return decided, err
	}
	for _, term := range []kms.Term{{Name: "work", Epoch: 1}, {Name: "work", Epoch: 3}, {Name: "other", Epoch: 2}} {
		decided, err := write(term)
		require.ErrorIs(t, err, kms.ErrDeposed)
		assert.False(t, decided)
	}
	decided, err := write(kms.Term{Name: "work", Epoch: 2})
	require.NoError(t, err)
	assert.True(t, decided)
	runs, err := s.RotationRuns(context.Background(), 9)
	require.NoError(t, err)
	require.Len(t, runs, 1)
	assert.Equal(t, "2", runs[0].ID)
}

func testRotationPause(t *testing.T, s Store) {
	read := func() *kms.RotationPause {
		pause, err := s.RotationPause(context.Background())
		require.NoError(t, err)
		assert.Equal(t, pause, stateOf(t, s, kms.Key{Pause: true}).Pause)
		return pause
	}
	assert.Nil(t, read())
	pause := kms.RotationPause{Since: Epoch(), By: "operator/alex", Reason: "a freeze"}
	put(t, s, kms.Outcome{Pause: &pause})
	assert.Equal(t, &pause, read())
	assert.Nil(t, stateOf(t, s, kms.Key{}).Pause, "not asked for")
	pause.Reason = "a longer one"
	put(t, s, kms.Outcome{Pause: &pause})
	assert.Equal(t, &pause, read())
	put(t, s, kms.Outcome{Resume: true})
	assert.Nil(t, read())
}

func testRotationRuns(t *testing.T, s Store) {
	ctx := context.Background()
	run := kms.RotationRun{ID: "a", Why: "due", By: "operator/alex", Epoch: 3, Started: Epoch()}
	put(t, s, kms.Outcome{Run: &run})
	assert.Equal(t, &run, stateOf(t, s, kms.Key{Run: "a"}).Run)
	assert.Nil(t, stateOf(t, s, kms.Key{Run: "b"}).Run)
	run.Ended = Epoch().Add(time.Minute)
	run.RunResult = kms.RunResult{
		Outcome: kms.RunPartly, Done: 1, Refused: 2, Failed: 3,
		Failures: []kms.RunFailure{{Kind: "rekey-volume", Object: "volume/x", Error: "it is \"revoked\""}},
	}
	put(t, s, kms.Outcome{Run: &run})
	assert.Equal(t, &run, stateOf(t, s, kms.Key{Run: "a"}).Run)

	put(t, s, kms.Outcome{Run: &kms.RotationRun{ID: "b"}})
	runs, err := s.RotationRuns(ctx, 9)
	require.NoError(t, err)
	require.Len(t, runs, 2)
	assert.Equal(t, []string{"b", "a"}, []string{runs[0].ID, runs[1].ID}, "newest first")
	for i := range kms.MaxRotationRuns {
		put(t, s, kms.Outcome{Run: &kms.RotationRun{ID: fmt.Sprint(i)}})
	}
	runs, err = s.RotationRuns(ctx, 2*kms.MaxRotationRuns)
	require.NoError(t, err)
	require.Len(t, runs, kms.MaxRotationRuns)
	assert.Equal(t, "0", runs[len(runs)-1].ID, "the oldest go")
}
