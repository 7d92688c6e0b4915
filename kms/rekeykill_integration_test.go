//go:build integration

package kms_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/kill"
	"keywright.dev/test/sim"
)

// agent is a machine whose first volume is rekeyed, and what it received for that.
type agent struct {
	*sim.Machine
	got *exchange.ReleasedSecret
}

func (a *agent) snapshot() *agent { return &agent{a.Machine.Snapshot(), a.got} }

func (a *agent) volume() kms.Volume {
	return kms.Volume{ID: a.Volumes[0].ID, Machine: a.TPM.Machine()}
}

// The steps of a rekey. Each can be done again by who does not know how far it came.
type rekeyStep func(ctx context.Context, s served, a *agent) error

func order(_ context.Context, s served, a *agent) error    { return s.order(a.volume()) }
func withdraw(_ context.Context, s served, a *agent) error { return s.withdraw(a.volume()) }

func deliver(ctx context.Context, s served, a *agent) (err error) {
	a.got, err = a.AskRekey(ctx, s, 0)
	return err
}

func boot(ctx context.Context, s served, a *agent) error {
	if a.got != nil {
		return nil
	}
	release, err := a.Unlock(ctx, s)
	if err == nil {
		a.got = &release.Secrets[0]
	}
	return err
}

func keepHeader(ctx context.Context, s served, a *agent) error { return a.KeepHeader(ctx, s, 0, a.got) }

func addKeyslot(_ context.Context, _ served, a *agent) error {
	a.Volumes[0].AddKeyslot(a.got.NextVersion, a.got.Next)
	return nil
}

func commit(ctx context.Context, s served, a *agent) error {
	_, err := a.Report(ctx, s, 0, exchange.RekeyedDetails{Version: a.got.NextVersion})
	return err
}

func finish(ctx context.Context, s served, a *agent) error {
	a.Volumes[0].KillKeyslots(a.got.NextVersion)
	_, err := a.Report(ctx, s, 0, exchange.RekeyedDetails{Version: a.got.NextVersion, Done: true})
	return err
}

// goOn is everything that a machine does with what it received.
func goOn(ctx context.Context, s served, a *agent) error {
	return a.FinishRekey(ctx, s, 0, a.got)
}

// restart forgets what was received.
func restart(_ context.Context, _ served, a *agent) error {
	a.Boot()
	a.got = nil
	return nil
}

// rekeyAct is a part of a rekey that the service dies in.
type rekeyAct struct {
	before, do []rekeyStep
	// stages are what the rows say of order and secrets: a transaction leads from one
	// to the next.
	stages []string
}

func rekeyActs() map[string]rekeyAct {
	const (
		untouched = "no order, [current]"
		ordered   = "open, [current]"
		delivered = "open, [current pending]"
		kept      = "open with a header, [current pending]"
		committed = "committed, [restore-only current]"
		withdrawn = "committed, [current]"
		finished  = "no order, [restore-only current]"
	)
	return map[string]rekeyAct{
		"order":    {do: []rekeyStep{order}, stages: []string{untouched, ordered}},
		"deliver":  {before: []rekeyStep{order}, do: []rekeyStep{deliver}, stages: []string{ordered, delivered}},
		"keep":     {before: []rekeyStep{order, deliver}, do: []rekeyStep{keepHeader}, stages: []string{delivered, kept}},
		"commit":   {before: []rekeyStep{order, deliver, addKeyslot}, do: []rekeyStep{commit}, stages: []string{delivered, committed}},
		"finish":   {before: []rekeyStep{order, deliver, addKeyslot, commit}, do: []rekeyStep{finish}, stages: []string{committed, finished}},
		"withdraw": {before: []rekeyStep{order, deliver, addKeyslot}, do: []rekeyStep{withdraw}, stages: []string{delivered, withdrawn}},
		"by a boot": {
			before: []rekeyStep{order, restart}, do: []rekeyStep{boot, goOn},
			stages: []string{ordered, delivered, kept, committed, finished},
		},
		"of a restored disk": {
			do: []rekeyStep{boot, goOn},
			stages: []string{
				finished, "open, [restore-only current pending]", "open with a header, [restore-only current pending]", "committed, [restore-only restore-only current]",
				"no order, [restore-only restore-only current]",
			},
		},
	}
}

// stage is what the rows say of a machine's first volume.
func (in *installation) stage(t *testing.T, a *agent) string {
	t.Helper()
	order := "no order"
	orders, err := in.store.Orders(t.Context(), "", 10)
	require.NoError(t, err)
	if len(orders) > 0 {
		require.Len(t, orders, 1)
		order = string(orders[0].Status)
		if orders[0].Status == kms.OrderOpen && !orders[0].HeaderKept.IsZero() {
			order += " with a header"
		}
	}
	var statuses []kms.SecretStatus
	require.NoError(t, in.store.Transact(t.Context(), kms.Key{Machine: a.TPM.Machine()}, func(state kms.State) (kms.Outcome, error) {
		for _, s := range state.Secrets {
			if s.Volume == a.Volumes[0].ID && s.Purpose == kms.PurposeKeyslot {
				statuses = append(statuses, s.Status)
			}
		}
		return kms.Outcome{}, nil
	}))
	return fmt.Sprintf("%s, %v", order, statuses)
}

// logged counts what the audit log has of rekeys and boots.
func (in *installation) logged(t *testing.T) (count int) {
	t.Helper()
	for _, action := range []string{kms.ActionRekey, kms.ActionWithdrawRekey, kms.ActionDeliverRekey, kms.ActionKeepHeader, kms.ActionReportRekey, "boot.release"} {
		count += len(in.entries(t, action))
	}
	return count
}

// rekeyIn is an installation as an act finds it.
type rekeyIn struct {
	rekeyAct
	folder string
	agent  *agent
	logged int
}

// A service that dies at any step of a rekey leaves a machine that boots, what the
// audit log says, and an order that ends: whether the machine goes on, or its power
// fails as well.
func TestRekeysSurviveKillsOfTheService(t *testing.T) {
	enrolled, machines, _ := enrolledIn(t)
	for name, act := range rekeyActs() {
		t.Run(name, func(t *testing.T) {
			p := prepareRekey(t, kill.Copy(t, enrolled), machines[0].Snapshot(), name, act)
			var a *agent
			killed := kill.AtEachPointBeside(t, "serve", p.folder, func(child io.ReadWriter) error {
				a = p.agent.snapshot()
				client := rpc.NewClient(struct {
					io.ReadWriter
					io.Closer
				}{child, io.NopCloser(child)})
				return p.doAll(t.Context(), &remote{client: client}, a)
			}, func(folder string) { p.holds(t, folder, a) })
			assert.Equal(t, 3*(len(act.stages)-1), killed, "three points a transaction")
		})
	}
}

// prepareRekey brings a machine to where an act begins.
func prepareRekey(t *testing.T, folder string, m *sim.Machine, name string, act rekeyAct) *rekeyIn {
	t.Helper()
	in := mustOpen(t, folder, "a", "b")
	defer in.close(t)
	p := &rekeyIn{rekeyAct: act, folder: folder, agent: &agent{Machine: m}}
	if name == "of a restored disk" {
		image := m.Volumes[0].Image()
		require.NoError(t, order(t.Context(), in.local(), p.agent))
		require.NoError(t, m.Rekey(t.Context(), in.local(), 0))
		m.Volumes[0] = image
		m.Boot()
		_, err := in.ExpectRestore(t.Context(), operator(), m.TPM.Machine(), in.clock.Now().Add(time.Hour), "a test")
		require.NoError(t, err)
	}
	for _, step := range act.before {
		require.NoError(t, step(t.Context(), in.local(), p.agent))
	}
	p.logged = in.logged(t)
	require.Equal(t, act.stages[0], in.stage(t, p.agent))
	return p
}

func (p *rekeyIn) doAll(ctx context.Context, s served, a *agent) error {
	for _, step := range p.do {
		if err := step(ctx, s, a); err != nil {
			return err
		}
	}
	return nil
}

// holds holds what a kill left against what has to be, and has the machine go on, in
// one way and in the other.
func (p *rekeyIn) holds(t *testing.T, folder string, a *agent) {
	t.Helper()
	in := mustOpen(t, folder, "b")
	in.rowsAreWhole(t)
	done := slices.Index(p.stages, in.stage(t, a))
	require.GreaterOrEqual(t, done, 0, "%s", in.stage(t, a))
	assert.Equal(t, done, in.logged(t)-p.logged, "what the audit log says is what there is")
	in.close(t)
	for name, goOn := range map[string]func(context.Context, *installation, *agent) error{
		"the machine tries again": p.again, "its power failed": afterPowerCut,
	} {
		in, a := mustOpen(t, kill.Copy(t, folder), "a"), a.snapshot()
		require.NoError(t, goOn(t.Context(), in, a), name)
		in.isSettled(t, a)
		in.close(t)
	}
}

// again does the act again, and what is left of the rekey after it.
func (p *rekeyIn) again(ctx context.Context, in *installation, a *agent) error {
	var done *kms.StateError
	var over *kms.Refusal
	err := p.doAll(ctx, in.local(), a)
	switch {
	case errors.As(err, &done): // the answer to the order was lost
	case errors.As(err, &over) && over.Reason == kms.ReasonOrder: // that to the last report was
	case err != nil:
		return err
	}
	orders, err := in.store.Orders(ctx, "", 10)
	if err != nil || len(orders) == 0 {
		return err
	}
	return a.Rekey(ctx, in.local(), 0)
}

// afterPowerCut has the machine boot and end the rekey with what the boot receives.
func afterPowerCut(ctx context.Context, in *installation, a *agent) error {
	a.Boot()
	release, err := a.Unlock(ctx, in.local())
	if err != nil {
		return fmt.Errorf("the machine does not boot: %w", err)
	}
	orders, err := in.store.Orders(ctx, "", 10)
	if err != nil || len(orders) == 0 {
		return err
	}
	return a.FinishRekey(ctx, in.local(), 0, &release.Secrets[0])
}

// isSettled holds that nothing is under way, one secret opens the volume, nothing is
// strange about its header, and the machine boots.
func (in *installation) isSettled(t *testing.T, a *agent) {
	t.Helper()
	stage := in.stage(t, a)
	assert.Regexp(t, `^no order, \[(restore-only )*current\]$`, stage)
	a.Boot()
	_, err := a.Unlock(t.Context(), in.local())
	require.NoError(t, err, stage)
	counts, err := in.store.Counts(t.Context())
	require.NoError(t, err)
	assert.Zero(t, counts.Alarms[kms.AlarmForeign], stage)
	in.rowsAreWhole(t)
}
