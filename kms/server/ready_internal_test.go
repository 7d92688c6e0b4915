package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

// fullDisk is a store that answers and takes no changes.
type fullDisk struct {
	Store
	full, failed error
}

func (f *fullDisk) Head(context.Context) ([]byte, int64, error) { return nil, 0, nil }
func (f *fullDisk) Err() error                                  { return f.failed }
func (f *fullDisk) LastFailure() error                          { return f.full }
func (f *fullDisk) TryWriting(context.Context) error            { return f.full }

// TestFullDiskIsNotReady: a service that can change nothing releases nothing,
// but a restart would not mend that.
func TestFullDiskIsNotReady(t *testing.T) {
	store := &fullDisk{full: errors.New("database or disk is full")}
	s := &Server{Config: Config{Store: store, Logger: slog.New(slog.DiscardHandler), Random: bytes.NewReader(make([]byte, 64)), Leases: heldFor(time.Hour, nil)}}
	s.running.Store(true)
	require.ErrorContains(t, s.Ready(t.Context()), "disk is full")
	require.NoError(t, s.Answers(t.Context()))
	answer := httptest.NewRecorder()
	s.serveReady(answer, httptest.NewRequest(http.MethodGet, api.PathReady, http.NoBody))
	assert.Equal(t, http.StatusServiceUnavailable, answer.Code)
	assert.Contains(t, answer.Body.String(), "disk is full")
	require.Error(t, s.tryWriting(t.Context()))
	store.full = nil
	require.NoError(t, s.tryWriting(t.Context()))
	assert.NoError(t, s.Ready(t.Context()))
	store.failed = errors.New("input/output error")
	assert.ErrorContains(t, s.Ready(t.Context()), "takes no changes since writing to disk failed")
	assert.Error(t, s.Answers(t.Context()))
}

func TestFaultsAreLoggedLoudly(t *testing.T) {
	assert.Equal(t, slog.LevelWarn, levelOf(failureOf(fmt.Errorf("committing: %w", kms.ErrUnavailable))))
	assert.Equal(t, slog.LevelError, levelOf(failureOf(errors.New("a fault"))))
	assert.Equal(t, slog.LevelInfo, levelOf(failAfter(api.CodeBusy, retryBusy)))
	assert.Equal(t, slog.LevelInfo, levelOf(fail(api.CodeNotFound)))
}

func heldFor(left time.Duration, err error) func() []kms.LeaseState {
	return func() []kms.LeaseState {
		return []kms.LeaseState{{Keyring: "default", Version: 1, Left: left, Err: err}, {Keyring: "system", Version: 1, Left: left, Err: err}}
	}
}

// With the roots away a service is degraded as long as keys are held, and not
// ready without any.
func TestReadinessWithoutRoots(t *testing.T) {
	away := errors.New("no root answers")
	s := &Server{Config: Config{Store: &fullDisk{}, Logger: slog.New(slog.DiscardHandler), Random: bytes.NewReader(make([]byte, 64))}}
	s.running.Store(true)
	s.Leases = heldFor(time.Hour, nil)
	assert.Empty(t, s.degraded())
	s.Leases = heldFor(90*time.Minute, away)
	require.NoError(t, s.Ready(t.Context()))
	assert.Contains(t, s.degraded(), "no root opens keyring/default@1: its key is held for 1h30m0s still")
	assert.InDelta(t, 5400, leastLease(s.Leases()), 0)
	s.Leases = heldFor(0, away)
	require.ErrorContains(t, s.Ready(t.Context()), "every boot is refused")
	require.NoError(t, s.Answers(t.Context()), "a restart would not mend that")
	assert.Zero(t, leastLease(nil))
}
