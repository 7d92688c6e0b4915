//go:build integration

package load_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/test/load"
	"keywright.dev/test/sim"
)

const (
	fleetSize = 2000
	// atOnce is how many machines ask at the same time.
	atOnce = 48
	// patience outlasts a restart of the service.
	patience = time.Minute
)

// TestStorm enrols a fleet of machines, approves it and boots it at once.
func TestStorm(t *testing.T) {
	r := newRig(t, sizeOf(fleetSize))
	r.enroll(nil)
	r.approve(nil)
	r.boot(nil)
	head := r.head()
	require.NoError(t, r.service.Stop())
	require.NoError(t, r.service.Start(t.Context()))
	r.check(head)
	assert.Zero(t, r.fleet.Retries.Load(), "every request was answered at once")
}

// TestStormWithKills does the same while the service is killed in the middle of
// everything, and once more with the last release hardly out.
func TestStormWithKills(t *testing.T) {
	n := sizeOf(fleetSize)
	r := newRig(t, n)
	r.fleet.Patience = patience
	r.enroll(r.kills(n / 2))
	r.approve(r.kills(n / 2))
	r.boot(r.kills(n/4, n/2))
	r.service.Kill()
	require.NoError(t, r.service.Start(t.Context()))
	r.check(r.head())
	assert.NotZero(t, r.fleet.Retries.Load(), "the kills hit nobody")
}

func sizeOf(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

// rig is a service and its fleet.
type rig struct {
	t       *testing.T
	service *load.Service
	fleet   *load.Fleet
	// key is the audit log's, as an auditor keeps it.
	key string
}

func newRig(t *testing.T, machines int) *rig {
	t.Helper()
	// A short path: that of a socket is limited.
	dir, err := os.MkdirTemp("", "kw") //nolint:usetesting // as above
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := load.BuildService(t.Context(), dir)
	require.NoError(t, err)
	r := &rig{t: t, service: load.NewService(program, dir)}
	require.NoError(t, r.service.Start(t.Context()))
	t.Cleanup(func() { r.service.Kill() })
	log, err := sim.ReadLog(filepath.Join("..", "..", "kms", "attest", "testdata", "eventlogs", "ovmf-secureboot-uki.bin"))
	require.NoError(t, err)
	r.fleet, err = load.NewFleet(t.Context(), r.service, log, machines)
	require.NoError(t, err)
	operator := r.service.Operator()
	defer operator.Close()
	status, err := operator.Status(t.Context())
	require.NoError(t, err)
	r.key = status.Audit.Key
	return r
}

// kills returns what kills the service before these steps.
func (r *rig) kills(at ...int) *load.Keeper {
	k := &load.Keeper{Service: r.service}
	for _, step := range at {
		k.KillAt = append(k.KillAt, int64(step))
	}
	return k
}

func (r *rig) each(what string, k *load.Keeper, work func(context.Context, *load.Machine) error) {
	r.t.Helper()
	n := len(r.fleet.Machines)
	var before func(int64)
	if k != nil {
		before = k.Before(r.t.Context())
	}
	start := time.Now()
	require.NoError(r.t, r.fleet.Each(r.t.Context(), atOnce, before, work), what)
	took := time.Since(start)
	r.t.Logf("%s: %d in %.1f s, %.0f a second", what, n, took.Seconds(), float64(n)/took.Seconds())
	if k != nil {
		killed, err := k.Killed()
		require.NoError(r.t, err)
		require.Equal(r.t, len(k.KillAt), killed)
	}
}

func (r *rig) enroll(k *load.Keeper) {
	r.t.Helper()
	r.each("enrolments", k, r.fleet.Enroll)
}

func (r *rig) approve(k *load.Keeper) {
	r.t.Helper()
	operator := r.service.Operator()
	defer operator.Close()
	r.each("approvals", k, func(ctx context.Context, m *load.Machine) error {
		return r.fleet.Approve(ctx, operator, m)
	})
}

func (r *rig) boot(k *load.Keeper) {
	r.t.Helper()
	r.each("boots", k, r.fleet.Boot)
}

// head waits until every entry is in the tree, which nothing but the service's
// own interval brings about, and returns the head over them.
func (r *rig) head() api.AuditHead {
	r.t.Helper()
	operator := r.service.Operator()
	defer operator.Close()
	require.Eventually(r.t, func() bool {
		status, err := operator.Status(r.t.Context())
		return err == nil && status.Audit.Sequenced == status.Audit.Entries
	}, patience, 10*time.Millisecond, "entries do not come into the tree")
	head, err := operator.AuditHead(r.t.Context())
	require.NoError(r.t, err)
	return head
}

// check holds a service that was started again, and what it left, against what
// the machines received; head is one that must cover all of it.
func (r *rig) check(head api.AuditHead) {
	r.t.Helper()
	ctx := r.t.Context()
	operator := r.service.Operator()
	defer operator.Close()
	ledger, err := load.ReadLedger(ctx, operator, r.key, []byte(head.Head))
	require.NoError(r.t, err)
	require.Equal(r.t, 1, ledger.Report.Kept)
	var receipts [][]byte
	for _, m := range r.fleet.Machines {
		receipts = append(receipts, m.Receipts...)
	}
	for _, receipt := range receipts {
		index, ok := ledger.Index[string(receipt)]
		require.True(r.t, ok, "a receipt is not in the log: %s", receipt)
		require.Less(r.t, index, head.Size, "the head does not cover an entry")
	}
	status, err := operator.Status(ctx)
	require.NoError(r.t, err)
	assert.Equal(r.t, map[string]int64{"active": int64(len(r.fleet.Machines))}, nonZero(status.Machines))
	require.NoError(r.t, r.service.Stop())
	require.NoError(r.t, ledger.CheckIncluded(ctx, r.service.Data(), receipts))
	require.NoError(r.t, load.CheckIntegrity(ctx, r.service.Data()))
	r.t.Logf("%d receipts in a log of %d entries, %d tries without an answer", len(receipts), ledger.Report.Entries, r.fleet.Retries.Load())
}

func nonZero(counts map[string]int64) map[string]int64 {
	kept := make(map[string]int64)
	for name, n := range counts {
		if n > 0 {
			kept[name] = n
		}
	}
	return kept
}
