package server_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
)

// TestMachineWaitsForAnOrder orders a rekey while a machine waits, which then
// carries it out.
func TestMachineWaitsForAnOrder(t *testing.T) {
	r := newRig(t, nil)
	ctx, guest, operator := t.Context(), r.guest("127.0.0.1"), r.operator()
	m := r.active("web-17")
	_, err := m.Unlock(ctx, guest)
	require.NoError(t, err)
	type answer struct {
		api.OrdersResponse
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		got, err := guest.Orders(context.WithoutCancel(ctx), m.TPM.Machine())
		answers <- answer{got, err}
	}()
	r.measured(`keywright_guest_lane_in_use{lane="wait"}`, 1)
	_, err = operator.RekeyVolume(ctx, m.Volumes[0].ID, api.RekeyVolume{Reason: "a test"})
	require.NoError(t, err)
	got := <-answers
	require.NoError(t, got.err)
	assert.True(t, got.Ordered)
	require.NoError(t, m.Rekey(ctx, guest, 0))
	page, err := operator.Orders(ctx, api.ListQuery{})
	require.NoError(t, err)
	assert.Empty(t, page.Items)

	_, err = guest.Orders(ctx, "unknown")
	refusedWith(t, api.CodeMachine, err)
}

// A server that stops has those who wait ask again.
func TestWaitingEndsWithTheServer(t *testing.T) {
	r := newRig(t, nil)
	guest := r.guest("127.0.0.1")
	m := r.active("web-17")
	ended := make(chan error, 1)
	go func() {
		_, err := guest.Orders(context.WithoutCancel(t.Context()), m.TPM.Machine())
		ended <- err
	}()
	r.measured(`keywright_guest_lane_in_use{lane="wait"}`, 1)
	r.close()
	require.NoError(t, <-ended)
}
