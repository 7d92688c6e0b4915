package unlock_test

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
)

// TestAttack10AnswerThatComesAfterTheHandOverOpensNothing extends PCR 15, as a
// hand-over does, while the answer is on its way.
func TestAttack10AnswerThatComesAfterTheHandOverOpensNothing(t *testing.T) {
	r := newRig(t)
	r.service.script = append(r.service.script, func(q api.ReleaseRequest) (api.ReleaseResponse, error) {
		r.tpm.Extend(15, exchange.NoReleaseEvent())
		return r.service.answer(r.service.statements[0], q.Statement)
	})
	failed(t, unlock.CodeSpent, r.run(t))
	assert.Equal(t, []string{"quote", "request", "extend"}, r.events)
	assert.Contains(t, r.lines[0], "KW-1404")
	_, err := os.Stat(filepath.Join(r.dir, "run", "receipt"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// waiting is a clock of somebody who waits for something.
type waiting struct {
	began chan struct{} // receives when the waiting begins
	over  chan struct{} // closed when it is over
}

func (waiting) Now() time.Time { return time.Unix(0, 0) }

func (w waiting) Sleep(context.Context, time.Duration) error {
	w.began <- struct{}{}
	<-w.over
	return nil
}

// TestAttack10HandOverWaitsForABootThatOpens hands over while a boot that has
// its keys opens the first of two volumes.
func TestAttack10HandOverWaitsForABootThatOpens(t *testing.T) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM) // the boot that is told to end is this process
	defer signal.Stop(told)
	r, h := newRig(t), newHandover(t)
	dir := unlock.RunDir(filepath.Join(r.dir, "run"))
	clock, done := waiting{make(chan struct{}), make(chan struct{})}, make(chan error)
	h.Closing.TPM = func() (unlock.ReleasePCR, error) { return r.tpm, nil }
	h.EndBoot, h.Clock, h.Root = dir.EndBoot, clock, "/"
	h.Closing.Opened = func() ([]unlock.Opened, error) {
		r.add("the record is read")
		opened, err := dir.ReadOpened()
		assert.Len(t, opened, 2)
		return nil, err
	}
	r.opener.opening = func(name string) {
		if name == "root" {
			go func() { done <- h.Run(context.Background()) }()
			<-clock.began
		}
	}
	end, err := dir.BeginBoot()
	require.NoError(t, err)
	require.NoError(t, r.run(t))
	end()
	close(clock.over)
	require.NoError(t, <-done)
	assert.Equal(t, []string{"open root with key of vol-a", "open data with key of vol-b", "the record is read"}, r.events[3:])
	assert.Equal(t, syscall.SIGTERM, <-told)
}

// A boot that is told to stop once it has its keys opens all volumes.
func TestStopDoesNotInterruptTheOpening(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	unseal := r.boot.Unseal
	r.boot.Unseal = func(opening context.Context, v unlock.Volume, key secret.Bytes) (secret.Bytes, error) {
		cancel()
		require.NoError(t, opening.Err())
		return unseal(opening, v, key)
	}
	require.NoError(t, r.boot.Run(ctx))
	assert.Len(t, r.events, 5)
}

func TestOneBootAtATime(t *testing.T) {
	dir := unlock.RunDir(filepath.Join(t.TempDir(), "run"))
	clock := &fakeClock{now: time.Unix(0, 0)}
	require.NoError(t, dir.EndBoot(t.Context(), clock), "no boot began")
	end, err := dir.BeginBoot()
	require.NoError(t, err)
	_, err = dir.BeginBoot()
	require.ErrorContains(t, err, "another keywright-unlock boot is running")
	end()
	require.NoError(t, dir.EndBoot(t.Context(), clock))
	end, err = dir.BeginBoot()
	require.NoError(t, err)
	end()
}

func TestBootThatDoesNotEnd(t *testing.T) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	defer signal.Stop(told)
	dir, start := unlock.RunDir(t.TempDir()), time.Unix(0, 0)
	clock := &fakeClock{now: start}
	end, err := dir.BeginBoot()
	require.NoError(t, err)
	defer end()
	require.ErrorContains(t, dir.EndBoot(t.Context(), clock), "did not end within")
	assert.GreaterOrEqual(t, clock.now.Sub(start), 2*time.Minute)
	assert.Equal(t, syscall.SIGTERM, <-told)
}

// A TPM that extends but cannot be read says nothing about who extended first.
func TestPCR15ThatCannotBeReadBackOpensNothing(t *testing.T) {
	r := newRig(t)
	r.tpm.blind = errors.New("the TPM does not read")
	failed(t, unlock.CodeTPM, r.run(t))
	assert.Equal(t, []string{"quote", "request", "extend"}, r.events)
}
