package server_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/server"
	"keywright.dev/rotate"
	"keywright.dev/test/process"
)

// scheduled is a service that rotates by itself at each minute of a clock that a test
// puts forward.
type scheduled struct {
	*rig
	ahead atomic.Int64
}

// standEvery is how often the services of these tests look who leads.
const standEvery = 500 * time.Millisecond

func scheduledConfig(data string) config.Config {
	c := config.Default()
	c.Server.Data, c.Server.GuestListen, c.Server.MetricsListen = filepath.Join(data, "d"), "127.0.0.1:0", "127.0.0.1:0"
	c.Rotation.Policy = filepath.Join(data, "rotation.toml")
	c.Rotation.Schedule = "* * * * *"
	return c
}

const yearlyPolicy = "[default]\njitter = \"none\"\n"

func openScheduled(t *testing.T, data string, change func(*config.Config)) *scheduled {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(data, "rotation.toml"), []byte(yearlyPolicy), 0o600))
	c := scheduledConfig(data)
	if change != nil {
		change(&c)
	}
	s := &scheduled{rig: &rig{t: t, log: new(process.Output), stopped: make(chan error, 1)}}
	var err error
	s.service, err = serve.Open(t.Context(), serve.Options{
		Config: c, Version: "test", Logger: slog.New(slog.NewJSONHandler(s.log, nil)), StandEvery: standEvery,
		Clock: func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }, Uptime: serve.Uptime,
	})
	require.NoError(t, err)
	return s
}

// history waits until the runs are as they are wanted.
func (s *scheduled) history(wanted func([]api.RotationRun) bool) (runs []api.RotationRun) {
	s.t.Helper()
	operator := s.operator()
	require.Eventually(s.t, func() bool {
		now, err := operator.Rotation(context.Background(), 100)
		require.NoError(s.t, err)
		runs = now.Runs
		return wanted(runs)
	}, 20*time.Second, 10*time.Millisecond)
	return runs
}

func ended(count int) func([]api.RotationRun) bool {
	return func(runs []api.RotationRun) bool {
		return len(runs) >= count && !slices.ContainsFunc(runs, func(r api.RotationRun) bool { return r.Ended == nil })
	}
}

func kindsOf(plan api.RotationPlan) (kinds []string) {
	for _, s := range plan.Steps {
		kinds = append(kinds, s.Kind)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

func TestAServiceRotatesByItsSchedule(t *testing.T) {
	s := openScheduled(t, t.TempDir(), nil)
	s.run()
	ctx, operator := t.Context(), s.operator()
	s.active("web-17")
	now, err := operator.Rotation(ctx, 1)
	require.NoError(t, err)
	assert.Equal(t, "* * * * * UTC", now.Schedule)
	assert.Empty(t, now.Runs)

	s.ahead.Store(int64(400 * 24 * time.Hour))
	runs := s.history(ended(1))
	run := runs[0]
	assert.Equal(t, "service/rotation", run.By)
	assert.Equal(t, "schedule", run.Why)
	assert.Equal(t, "partly", run.Outcome)
	assert.Equal(t, 2+2+2+2, run.Done, "rotated, rewrapped and disabled two keyrings, ordered two rekeys: %+v", run)
	// It destroys nothing, since no policy permits it that.
	assert.Equal(t, 2, run.Refused)
	require.Len(t, run.Failures, 2)
	assert.Equal(t, "destroy-keyring-version", run.Failures[0].Kind)
	assert.Contains(t, run.Failures[0].Error, "a person does it")

	plan, err := operator.RotationPlan(ctx, time.Time{}, 0)
	require.NoError(t, err)
	assert.Equal(t, []string{"destroy-keyring-version"}, kindsOf(plan))
	entries, err := operator.AuditEntries(ctx, api.ListQuery{Action: "keyring.rotate"})
	require.NoError(t, err)
	require.NotEmpty(t, entries.Items)
}

// gate does something once, before the first steps are worked on.
type gate struct {
	server.Queue
	once sync.Once
	do   func(first func() error)
}

func (g *gate) Do(ctx context.Context, steps []rotate.Step, work func(context.Context, *rotate.Step) error) error {
	g.once.Do(func() {
		g.do(func() error { return work(context.WithoutCancel(ctx), &steps[0]) })
	})
	return g.Queue.Do(ctx, steps, work)
}

// gated is a service whose first steps wait for what is done before them.
func gated(t *testing.T, do func(s *scheduled, first func() error)) *scheduled {
	t.Helper()
	s := openScheduled(t, t.TempDir(), nil)
	s.service.Server.Queue = &gate{Queue: s.service.Server.Queue, do: func(first func() error) { do(s, first) }}
	s.run()
	s.active("web-17")
	s.ahead.Store(int64(400 * 24 * time.Hour))
	return s
}

// current is the current version of keyring default.
func (s *scheduled) current() uint32 {
	s.t.Helper()
	k, err := s.operator().Keyring(context.Background(), "default")
	require.NoError(s.t, err)
	return k.Current
}

func TestAPauseEndsARunUnderWay(t *testing.T) {
	s := gated(t, func(s *scheduled, first func() error) {
		_, err := s.operator().PauseRotation(context.Background(), "a freeze")
		assert.NoError(t, err)
		assert.ErrorIs(t, first(), kms.ErrPaused)
	})
	run := s.history(ended(1))[0]
	assert.Equal(t, "stopped", run.Outcome)
	assert.Zero(t, run.Done)
	assert.EqualValues(t, 1, s.current())
	now, err := s.operator().Rotation(t.Context(), 1)
	require.NoError(t, err)
	assert.Equal(t, "a freeze", now.Paused.Reason)
	_, err = s.operator().BeginRun(t.Context(), api.BeginRun{Why: "due"})
	assert.Contains(t, refusedWith(t, api.CodeState, err).Message, "paused")
	_, err = s.operator().PauseRotation(t.Context(), "another")
	refusedWith(t, api.CodeState, err)

	_, err = s.operator().ResumeRotation(t.Context())
	require.NoError(t, err)
	_, err = s.operator().ResumeRotation(t.Context())
	refusedWith(t, api.CodeState, err)
	s.ahead.Add(int64(time.Hour))
	run = s.history(ended(2))[0]
	assert.Equal(t, 8, run.Done)
	assert.EqualValues(t, 2, s.current())
}

// Between plan and steps another server takes over: what this one planned is refused.
// Once the other one is gone this one goes on, anew.
func TestADeposedServerChangesNothing(t *testing.T) {
	s := gated(t, func(s *scheduled, first func() error) {
		err := s.service.Server.Service.Store.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
			return kms.Outcome{Leader: &kms.Leadership{Name: kms.RotationLeader, Epoch: 7, Holder: "another"}}, nil
		})
		assert.NoError(t, err)
		assert.ErrorIs(t, first(), kms.ErrDeposed)
	})
	runs := s.history(ended(2))
	assert.Equal(t, "stopped", runs[1].Outcome, "the next leader ended it")
	assert.Zero(t, runs[1].Done)
	assert.Equal(t, "partly", runs[0].Outcome)
	assert.Equal(t, 8, runs[0].Done)
	assert.EqualValues(t, 2, s.current(), "rotated once")
}

func TestASitePermitsAndForbidsTheServiceWhatItDoes(t *testing.T) {
	data := t.TempDir()
	site := filepath.Join(data, "site.cedar")
	require.NoError(t, os.WriteFile(site, []byte(`
		@id("destroys") permit (principal == Operator::"service/rotation", action == Action::"keyring.destroy", resource);
		@id("no-rekeys") forbid (principal in Role::"rotation", action == Action::"volume.rekey", resource);`), 0o600))
	s := openScheduled(t, data, func(c *config.Config) { c.Policy.Files = []string{site} })
	s.run()
	s.active("web-17")
	s.ahead.Store(int64(400 * 24 * time.Hour))
	run := s.history(ended(1))[0]
	assert.Equal(t, 2+2+2+2, run.Done, "rotated, rewrapped, disabled and destroyed: %+v", run)
	assert.Equal(t, 2, run.Refused)
	require.Len(t, run.Failures, 2)
	assert.Equal(t, "rekey-volume", run.Failures[0].Kind)

	s.ahead.Add(int64(400 * 24 * time.Hour))
	runs := s.history(ended(2))
	require.Len(t, runs, 2)
	assert.Equal(t, 8, runs[0].Done)
}

// A machine is out: what is ordered for it is for a boot alone, and its running system,
// which may be somebody else's, is not told that there is anything.
func TestAttack18RunningSystemOfAMachineThatIsOutGetsNothing(t *testing.T) {
	r := newRig(t, nil)
	ctx, operator, guest := t.Context(), r.operator(), r.guest("127.0.0.1")
	m := r.active("web-17")
	_, err := m.Unlock(ctx, guest)
	require.NoError(t, err)
	out := api.Compromise{What: []string{"machine/web-17", "machine/web-17"}, Since: time.Now()}
	chain, err := operator.RotationChain(ctx, out, 0)
	require.NoError(t, err)
	rekeys := 0
	for _, s := range chain.Steps {
		if s.Kind == "rekey-volume" {
			rekeys++
			assert.True(t, s.AtBoot)
			_, err := operator.RekeyVolume(ctx, strings.TrimPrefix(s.Object, "volume/"), api.RekeyVolume{Reason: "theft", AtBoot: s.AtBoot})
			require.NoError(t, err)
		}
	}
	assert.Equal(t, len(m.Volumes), rekeys, "each once")
	has, err := r.service.Server.Service.HasOrders(ctx, m.TPM.Machine(), netip.MustParseAddr("127.0.0.1"))
	require.NoError(t, err)
	assert.False(t, has)
	chain, err = operator.RotationChain(ctx, out, 0)
	require.NoError(t, err)
	assert.Empty(t, chain.Steps)
	assert.Contains(t, chain.Totals, api.RotationTotal{Rule: "default", Kind: "rekey-volume", WaitsFor: "order", Count: int64(rekeys), Cost: api.RotationCost{Machines: int64(rekeys)}})

	for _, what := range [][]string{nil, {"web-17"}, {"machine/web-18"}, make([]string, api.MaxCompromised+1)} {
		_, err := operator.RotationChain(ctx, api.Compromise{What: what}, 0)
		assert.Error(t, err)
	}
}
