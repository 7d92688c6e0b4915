package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/policy"
)

func TestEveryCodeHasOneMeaning(t *testing.T) {
	seen := make(map[api.Code]bool)
	for _, m := range Meanings() {
		assert.False(t, seen[m.Code], m.Code)
		seen[m.Code] = true
		assert.GreaterOrEqual(t, m.Status, 400, m.Code)
		assert.Regexp(t, `^[A-Z].*\.$`, m.Text)
	}
	assert.Len(t, api.Codes(), len(seen))
	for _, code := range api.Codes() {
		assert.True(t, seen[code], code)
	}
	for _, reason := range kms.Reasons() {
		assert.True(t, seen[api.Code(reason)], "the domain refuses with a reason that has no answer: %s", reason)
	}
}

func TestRefusalsTellTheReasonAlone(t *testing.T) {
	f := failureOf(&kms.Refusal{Reason: kms.ReasonMeasurement, Detail: "uki.cmdline was quiet, is init=/bin/sh"})
	assert.Equal(t, 403, f.status)
	assert.NotContains(t, f.body.Message, "init=")
	assert.Equal(t, "KW-1203 measurement: "+f.body.Message, f.Error())
	for _, err := range []error{kms.ErrUnavailable, context.DeadlineExceeded} {
		assert.Positive(t, failureOf(err).body.RetryAfter)
	}
	for _, err := range []error{kms.ErrRoots, kms.ErrRootsRefuse} {
		assert.Equal(t, api.CodeRoots, failureOf(err).body.Code, "another replica may hold the keys")
		assert.ErrorIs(t, failureOf(err).cause, err)
	}
	assert.Equal(t, api.CodeInternal, failureOf(assert.AnError).body.Code)
	assert.NotContains(t, failureOf(assert.AnError).body.Message, assert.AnError.Error())
}

func TestRouteWithoutActionDoesNotStart(t *testing.T) {
	documents, err := policy.Shipped()
	require.NoError(t, err)
	engine, err := policy.New(documents...)
	require.NoError(t, err)
	known := Route{Listener: OperatorListener, Method: "GET", Path: "/a", Action: "machine.list"}
	require.NoError(t, checkActions([]Route{known}, engine))
	for _, bad := range []Route{
		{Listener: GuestListener, Method: "POST", Path: "/b"},
		{Listener: MetricsListener, Method: "GET", Path: "/c"},
		{Listener: OperatorListener, Method: "GET", Path: "/d", Action: "machine.lst"},
	} {
		assert.ErrorContains(t, checkActions([]Route{known, bad}, engine), bad.Path)
	}
}

func TestSources(t *testing.T) {
	for address, source := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		assert.Equal(t, source, sourceOf(netip.MustParseAddr(address)).String())
	}
}

func TestRatesForgetTheOldestSource(t *testing.T) {
	limits := DefaultLimits()
	limits.Rate, limits.Burst, limits.Sources = 1, 1, 2
	limits.Balancers = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")}
	s, now := newSourceRates(&limits), time.Unix(1e9, 0)
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	admitted := func(address netip.Addr) bool { _, ok := s.admit(address, now); return ok }
	assert.True(t, admitted(a))
	retry, ok := s.admit(a, now)
	assert.False(t, ok)
	assert.Equal(t, time.Second, retry)
	assert.True(t, admitted(b))
	assert.True(t, admitted(c), "which makes a forgotten")
	assert.Len(t, s.buckets, 2)
	assert.False(t, admitted(b), "b was not")
	now = now.Add(time.Second)
	assert.True(t, admitted(b))
	for range 10 {
		assert.True(t, admitted(netip.MustParseAddr("10.0.0.3")), "a balancer")
	}
}

func TestLaneAnswersBusyAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane("release", 1)
		leave, err := l.enter(t.Context())
		require.NoError(t, err)
		began := time.Now()
		_, err = l.enter(t.Context())
		assert.Equal(t, api.CodeBusy, failureOf(err).body.Code)
		assert.Positive(t, failureOf(err).body.RetryAfter)
		assert.Equal(t, laneTimeout, time.Since(began))
		go func() { time.Sleep(time.Second); leave() }()
		next, err := l.enter(t.Context())
		require.NoError(t, err, "who waits gets the slot that is given back")
		next()
		assert.Zero(t, l.inUse())
	})
}

func TestBodyMemoryIsGivenBack(t *testing.T) {
	limits := DefaultLimits()
	limits.BodyMemory = 100
	b := newBodies(&limits)
	one := b.open(netip.MustParseAddr("192.0.2.1"))
	require.NoError(t, one.grow(10))
	require.Error(t, one.grow(13), "a quarter of all is one source's share")
	require.NoError(t, one.grow(12))
	var held []*charge
	for i := range 3 {
		c := b.open(netip.AddrFrom4([4]byte{192, 0, 2, byte(2 + i)}))
		require.NoError(t, c.grow(12))
		held = append(held, c)
	}
	require.Error(t, b.open(netip.MustParseAddr("192.0.2.9")).grow(3), "all is held")
	one.close()
	require.NoError(t, b.open(netip.MustParseAddr("192.0.2.9")).grow(3))
	for _, c := range held {
		c.close()
		c.close()
	}
	assert.Equal(t, int64(6), b.inUse())
}

func TestPeers(t *testing.T) {
	assert.NoError(t, CheckPeer(Peer{UID: 0}, 1000))
	assert.NoError(t, CheckPeer(Peer{UID: 1000}, 1000))
	for _, uid := range []int{1, 1001, 65534, -1} {
		assert.Error(t, CheckPeer(Peer{UID: uid}, 1000), uid)
	}
	assert.Error(t, CheckPeer(peerFrom(t.Context()), 1000), "without credentials nobody is anybody")
}

func TestOldestBodyGivesWay(t *testing.T) {
	limits := DefaultLimits()
	limits.BodyMemory = 100
	b := newBodies(&limits)
	var held []*charge
	stopped := make([]bool, 4)
	for i := range 4 {
		c := b.open(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		c.arrive(func() { stopped[i] = true })
		require.NoError(t, c.grow(12))
		held = append(held, c)
	}
	held[0].complete()
	c := b.open(netip.MustParseAddr("192.0.2.9"))
	c.arrive(func() {})
	require.NoError(t, c.grow(12))
	assert.Equal(t, []bool{false, true, false, false}, stopped, "what is complete is not given up")
	assert.Equal(t, api.CodeBusy, failureOf(held[1].late()).body.Code)
	assert.Error(t, held[1].grow(12))
	for _, c := range append(held, c) {
		c.close()
	}
	assert.Zero(t, b.inUse())
	assert.Empty(t, b.bySource)
	assert.Zero(t, b.arriving.Len())
}

func TestConnectionHasAMomentBeforeItGivesWay(t *testing.T) {
	limits := DefaultLimits()
	limits.Connections, limits.PerSource = 2, 2
	now, turnedAway := time.Unix(1e9, 0), 0
	a := newConnections(&limits, func() time.Time { return now }, func() { turnedAway++ })
	connect := func(source string) (*connection, *connection) { return a.admit(pipeFrom{address: source + ":1"}) }
	first, _ := connect("192.0.2.1")
	second, _ := connect("192.0.2.1")
	third, _ := connect("192.0.2.1")
	assert.Nil(t, third, "one source's share")
	third, _ = connect("192.0.2.2")
	assert.Nil(t, third, "all are taken, by those who just came")
	now = now.Add(requestGrace)
	a.track(first, http.StateActive)
	third, evicted := connect("192.0.2.2")
	require.NotNil(t, third)
	assert.Same(t, second, evicted, "the first is being served")
	assert.Equal(t, 2, a.count())
	assert.Equal(t, 3, turnedAway)
	for _, c := range []*connection{first, second, third} {
		require.NoError(t, c.Close())
		require.NoError(t, c.Close())
	}
	assert.Zero(t, a.count())
	assert.Empty(t, a.bySource)
	assert.Zero(t, a.waiting.Len())
}

func TestBodyHasAMomentBeforeItGivesWay(t *testing.T) {
	limits := DefaultLimits()
	limits.Connections = 3
	now := time.Unix(1e9, 0)
	a := newConnections(&limits, func() time.Time { return now }, func() {})
	connect := func() (*connection, *connection) { return a.admit(pipeFrom{address: "192.0.2.1:1"}) }
	var gaveWay []int
	var held []*connection
	for i := range 3 {
		c, _ := connect()
		a.track(c, http.StateActive)
		c.arrive(func() { gaveWay = append(gaveWay, i) })
		held = append(held, c)
	}
	none, _ := connect()
	assert.Nil(t, none, "they had no time yet")
	now = now.Add(requestGrace)
	held[0].arrived()
	fourth, evicted := connect()
	require.NotNil(t, fourth)
	assert.Same(t, held[1], evicted, "the first is being served")
	evicted.giveUp()
	assert.Equal(t, []int{1}, gaveWay)
	assert.Equal(t, 3, a.count())

	// It was served all the same: nothing counts it any more, so it ends.
	evicted.arrived()
	a.track(evicted, http.StateIdle)
	assert.Equal(t, 3, a.count())
	assert.Equal(t, 1, a.waiting.Len(), "the fourth")
	for _, c := range append(held, fourth) {
		require.NoError(t, c.Close())
	}
	assert.Zero(t, a.count())
	assert.Zero(t, a.waiting.Len()+a.arriving.Len())
	connectionFrom(t.Context()).arrive(nil) // a request of no such connection
	connectionFrom(t.Context()).arrived()
}

// pipeFrom is a connection of which only the address matters.
type pipeFrom struct {
	net.Conn
	address string
}

func (p pipeFrom) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.address))
}
func (p pipeFrom) Close() error { return nil }
