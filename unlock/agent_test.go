package unlock_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/unlock"
)

// scriptedOrders answers with a script, of which the last goes on.
type scriptedOrders struct {
	asked  *[]string
	name   string
	script []func() (api.OrdersResponse, error)
}

func (s *scriptedOrders) Orders(context.Context, string) (api.OrdersResponse, error) {
	*s.asked = append(*s.asked, s.name)
	next := s.script[0]
	if len(s.script) > 1 {
		s.script = s.script[1:]
	}
	return next()
}

func orders(ordered bool, again int) func() (api.OrdersResponse, error) {
	return func() (api.OrdersResponse, error) { return api.OrdersResponse{Ordered: ordered, Again: again}, nil }
}

func noOrders(err error) func() (api.OrdersResponse, error) {
	return func() (api.OrdersResponse, error) { return api.OrdersResponse{}, err }
}

// napping passes time by sleeping, notes it, and ends what it is used by.
type napping struct {
	fakeClock
	slept []time.Duration
	most  int
	end   context.CancelFunc
}

func (n *napping) Sleep(ctx context.Context, d time.Duration) error {
	n.slept = append(n.slept, d)
	if len(n.slept) == n.most {
		n.end()
	}
	return n.fakeClock.Sleep(ctx, d)
}

// agentRig is an agent of a machine without volumes.
type agentRig struct {
	agent *unlock.Agent
	clock *napping
	known *unlock.Orders
	asked []string
	lines []string
	begun []int
	ctx   context.Context //nolint:containedctx // the clock ends it
}

func newAgentRig(t *testing.T, rounds int, scripts ...[]func() (api.OrdersResponse, error)) *agentRig {
	t.Helper()
	r := new(agentRig)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r.ctx, r.clock = ctx, &napping{most: rounds, end: cancel}
	r.known = &unlock.Orders{Machine: "m", Begin: func(_ context.Context, server int) (func(context.Context, unlock.Volume) (bool, error), func(), error) {
		r.begun = append(r.begun, server)
		return nil, func() {}, nil
	}}
	for i, script := range scripts {
		name := fmt.Sprintf("kw-%d", i)
		r.known.Servers = append(r.known.Servers, unlock.OrderServer{Host: name, OrderService: &scriptedOrders{&r.asked, name, script}})
	}
	r.agent = &unlock.Agent{
		Orders: func() (*unlock.Orders, error) { return r.known, nil }, Clock: r.clock,
		Random: func() float64 { return 0.5 }, Log: func(line string) { r.lines = append(r.lines, line) },
	}
	return r
}

func (r *agentRig) run(t *testing.T) {
	t.Helper()
	require.NoError(t, r.agent.Run(r.ctx))
}

type answers = []func() (api.OrdersResponse, error)

// A server says when to come again, within reason; a machine may come later, so that
// a fleet does not come at once.
func TestAgentComesAgainWhenItIsTold(t *testing.T) {
	r := newAgentRig(t, 3, answers{orders(false, 120), orders(false, 1<<30), orders(false, 0)})
	r.run(t)
	assert.Equal(t, []time.Duration{135 * time.Second, 675 * time.Second, 1500 * time.Millisecond}, r.clock.slept)
	assert.Equal(t, []string{"told to end: no step is under way"}, r.lines)
}

// Servers that do not answer are asked in turn, ever more seldom, and the log says so
// once.
func TestAgentIsPatientWithServers(t *testing.T) {
	silence := noOrders(errors.New("connection refused"))
	r := newAgentRig(t, 12, answers{silence}, answers{silence})
	r.run(t)
	assert.Equal(t, []string{"kw-0", "kw-1", "kw-0"}, r.asked[:3])
	assert.Equal(t, []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second}, r.clock.slept[:3])
	assert.Equal(t, 225*time.Second, r.clock.slept[11])
	require.Len(t, r.lines, 2)
	assert.Contains(t, r.lines[0], "KW-1501 unavailable, asking kw-0: connection refused")
}

func TestAgentTellsThatAServerIsBack(t *testing.T) {
	r := newAgentRig(t, 4, answers{
		noOrders(errors.New("connection refused")), noOrders(errors.New("connection refused")), orders(false, 0),
		noOrders(&api.Error{Code: api.CodeRevoked, Number: api.CodeRevoked.Number(), Message: "revoked", RetryAfter: 3600}),
	})
	r.run(t)
	require.Len(t, r.lines, 4)
	assert.Equal(t, "kw-0 answers again", r.lines[1])
	assert.Contains(t, r.lines[2], "KW-1208 machine_revoked")
	assert.Equal(t, 5*time.Minute, r.clock.slept[3], "the most that a server may ask for")
}

// A server that goes on saying that there are orders, of which there is none, is
// believed ever more seldom.
func TestAgentIsNotKeptBusy(t *testing.T) {
	r := newAgentRig(t, 8, answers{noOrders(errors.New("x")), orders(true, 0)}, answers{orders(true, 0)})
	r.run(t)
	assert.Equal(t, []int{1, 1}, r.begun[:2], "the server that told is asked first")
	assert.Equal(t, []time.Duration{22500 * time.Millisecond, 45 * time.Second}, r.clock.slept[1:3])
	assert.Equal(t, 675*time.Second, r.clock.slept[7])
	assert.Contains(t, strings.Join(r.lines, "\n"), "nothing is ordered of the volumes of this machine that are there")
}

func TestAgentSaysWhatItCannotBegin(t *testing.T) {
	r := newAgentRig(t, 1, answers{orders(true, 0)})
	r.known.Begin = func(context.Context, int) (func(context.Context, unlock.Volume) (bool, error), func(), error) {
		return nil, nil, unlock.TPMFailure(errors.New("the TPM\nis gone"))
	}
	r.run(t)
	assert.Equal(t, []string{
		"the service has orders for this machine", "carrying out what is ordered: KW-1401 tpm: the TPM is gone",
		"trying again in 22 s", "told to end: no step is under way",
	}, r.lines)
}

func TestAgentEndsWithTheEnrolment(t *testing.T) {
	r := newAgentRig(t, 10, answers{orders(false, 0)})
	r.agent.Orders = func() (*unlock.Orders, error) {
		return nil, fmt.Errorf("reading the configuration: %w", fs.ErrNotExist)
	}
	r.run(t)
	assert.Empty(t, r.clock.slept)
	assert.Equal(t, []string{"this machine is not enrolled any more: nothing is left to wait for"}, r.lines)
}

func TestFromPutsOneFirst(t *testing.T) {
	assert.Equal(t, []int{2, 3, 1}, unlock.From([]int{1, 2, 3}, 1))
	assert.Equal(t, []int{1, 2, 3}, unlock.From([]int{1, 2, 3}, 3))
}
