package storetest

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

const callers = 32

// exit ends the goroutine.
func exit() { runtime.Goexit() }

// together calls f from many goroutines at once.
func together(f func(n int)) {
	var done sync.WaitGroup
	for n := range callers {
		done.Go(func() { f(n) })
	}
	done.Wait()
}

// Of many who redeem one challenge at once, for different machines, one does.
func testRedeemRace(t *testing.T, s Store) {
	challenge := Digest("challenge", 1)
	redeem := &kms.Redemption{Challenge: challenge, KeepUntil: time.Now().Add(time.Hour)}
	var redeemed, refused atomic.Int64
	together(func(n int) {
		err := s.Transact(context.Background(), kms.Key{Machine: MachineID(n), Challenge: &challenge},
			func(kms.State) (kms.Outcome, error) { return kms.Outcome{Machine: NewMachine(n), Redeem: redeem}, nil })
		switch {
		case err == nil:
			redeemed.Add(1)
		case errors.Is(err, kms.ErrRedeemed):
			refused.Add(1)
		}
	})
	assert.Equal(t, int64(1), redeemed.Load())
	assert.Equal(t, int64(callers-1), refused.Load())
	found, err := s.Machines(context.Background(), kms.MachineFilter{}, "", callers)
	require.NoError(t, err)
	assert.Len(t, found, 1, "the others wrote nothing")
}

// Changes of one machine never see the same state.
func testSerial(t *testing.T, s Store) {
	put(t, s, family(1))
	const rounds = 8
	together(func(n int) {
		for range rounds {
			assert.NoError(t, s.Transact(context.Background(), kms.Key{Machine: MachineID(1)},
				func(state kms.State) (kms.Outcome, error) {
					state.Machine.Counters.Clock++
					return kms.Outcome{Machine: state.Machine}, nil
				}))
		}
	})
	got := stateOf(t, s, kms.Key{Machine: MachineID(1)})
	assert.Equal(t, NewMachine(1).Counters.Clock+callers*rounds, got.Machine.Counters.Clock)
}

// From the moment that a revocation is acknowledged there is no release.
func testRevocationConflicts(t *testing.T, s Store) {
	put(t, s, family(1))
	var revoked atomic.Bool
	var releasedAfter, released atomic.Int64
	together(func(n int) {
		if n == callers/2 {
			assert.NoError(t, revoke(s))
			revoked.Store(true)
			return
		}
		for range 20 {
			before := revoked.Load()
			err := releaseActive(s)
			if err == nil {
				released.Add(1)
			}
			if err == nil && before {
				releasedAfter.Add(1)
			}
		}
	})
	assert.Zero(t, releasedAfter.Load())
	assert.Equal(t, kms.MachineRevoked, stateOf(t, s, kms.Key{Machine: MachineID(1)}).Machine.Status,
		"no release wrote an older row over the revocation")
	t.Logf("%d releases before the revocation", released.Load())
}

func revoke(s Store) error {
	return s.Transact(context.Background(), kms.Key{Machine: MachineID(1)}, func(state kms.State) (kms.Outcome, error) {
		state.Machine.Status = kms.MachineRevoked
		return kms.Outcome{Machine: state.Machine}, nil
	})
}

func releaseActive(s Store) error {
	return s.Transact(context.Background(), kms.Key{Machine: MachineID(1)}, func(state kms.State) (kms.Outcome, error) {
		if state.Machine.Status != kms.MachineActive {
			return kms.Outcome{}, errors.New("revoked")
		}
		state.Machine.Counters.Clock++
		return kms.Outcome{Machine: state.Machine}, nil
	})
}

// A query sees nothing of a change that is still being decided.
func testUncommittedIsUnseen(t *testing.T, s Store) {
	ctx := context.Background()
	put(t, s, family(1))
	require.NoError(t, s.Transact(ctx, kms.Key{Machine: MachineID(1)}, func(state kms.State) (kms.Outcome, error) {
		found, err := s.Machine(ctx, MachineID(1))
		assert.NoError(t, err)
		assert.Equal(t, kms.MachineActive, found.Status)
		state.Machine.Status = kms.MachineRevoked
		return kms.Outcome{Machine: state.Machine}, nil
	}))
	found, err := s.Machine(ctx, MachineID(1))
	require.NoError(t, err)
	assert.Equal(t, kms.MachineRevoked, found.Status, "what was acknowledged is seen")
}

func testCanceled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	assert.ErrorIs(t, s.Transact(ctx, kms.Key{}, decideTo(everything(t, 1))), context.Canceled)
	requireNothing(t, s, 1)
}

// hold keeps a machine's rows from others until release is called.
func hold(t *testing.T, s Store) (release func()) {
	t.Helper()
	deciding, let := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		assert.NoError(t, s.Transact(context.Background(), kms.Key{Machine: MachineID(1)},
			func(kms.State) (kms.Outcome, error) {
				close(deciding)
				<-let
				return kms.Outcome{}, nil
			}))
	})
	<-deciding
	return sync.OnceFunc(func() {
		close(let)
		done.Wait()
	})
}

// A caller who gives up while others hold the rows gets its answer then, and
// nothing is written.
func testCanceledWhileWaiting(t *testing.T, s Store) {
	release := hold(t, s)
	defer release()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	assert.ErrorIs(t, s.Transact(ctx, kms.Key{Machine: MachineID(1)}, decideTo(everything(t, 1))), context.DeadlineExceeded)
	release()
	requireNothing(t, s, 1)
}

// A change that was decided is carried out, or reported as not done: never
// done and reported as canceled.
func testCanceledTooLate(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(context.Background())
	err := s.Transact(ctx, kms.Key{Machine: MachineID(1)}, func(kms.State) (kms.Outcome, error) {
		cancel()
		return everything(t, 1), nil
	})
	if err != nil {
		requireNothing(t, s, 1)
		return
	}
	assert.Equal(t, NewMachine(1), stateOf(t, s, kms.Key{Machine: MachineID(1)}).Machine)
}
