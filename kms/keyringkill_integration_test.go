//go:build integration

package kms_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/store/storetest"
	"keywright.dev/test/kill"
	"keywright.dev/test/sim"
)

// keyringAct is what operators do with keyrings, or the service after them.
type keyringAct struct {
	// before brings an installation to where the act begins.
	before []func(context.Context, *installation) error
	// do begins where what is there ends, and finishes.
	do func(context.Context, *installation) error
	// done counts what of the act the rows have, and logged what of it the audit log
	// has: the same, wherever it was cut.
	done, logged func(*testing.T, *installation) int
	finished     int
	// points are those of the act: four a root that wraps and reads back, three a
	// transaction.
	points int
}

func keyringActs() map[string]keyringAct {
	return map[string]keyringAct{
		"rotate": {
			do: rotateDefault, finished: 1, points: 2*2*2 + 3,
			done:   func(t *testing.T, in *installation) int { return len(in.keyring(t, "default").Versions) - 1 },
			logged: func(t *testing.T, in *installation) int { return len(in.entries(t, kms.ActionRotateKeyring)) },
		},
		"rewrap": {
			before: []func(context.Context, *installation) error{rotateDefault, rotateSystem},
			// Eight secrets in pages of three, and the service's keys together.
			do: rewrapBoth, finished: 8 + 3, points: 3 * (3 + 1),
			done: func(t *testing.T, in *installation) int {
				return int(in.keyring(t, "default").Count(2) + in.keyring(t, "system").Count(2))
			},
			logged: func(t *testing.T, in *installation) int { return in.factsOf(t, kms.ActionRewrapKeyring, "rewrapped") },
		},
		"destroy": {
			before: []func(context.Context, *installation) error{rotateDefault, rewrapBoth},
			do:     destroyStepwise, finished: 3, points: 3 * 3,
			done: func(t *testing.T, in *installation) int {
				return slices.Index([]kms.KeyringStatus{kms.KeyringEnabled, kms.KeyringDisabled, kms.KeyringScheduled, kms.KeyringDestroyed},
					in.keyring(t, "default").Versions[0].Status)
			},
			logged: func(t *testing.T, in *installation) int {
				return len(in.entries(t, kms.ActionDisableKeyring)) + len(in.entries(t, kms.ActionDestroyKeyring)) + len(in.entries(t, kms.ActionEraseKeyring))
			},
		},
		"assign": {
			do: assignToNew, finished: 2, points: 2*2*2 + 3 + 3, done: assignedRows,
			logged: func(t *testing.T, in *installation) int {
				return len(in.entries(t, kms.ActionCreateKeyring)) + in.factsOf(t, kms.ActionAssignKeyring, "secrets")/4
			},
		},
		"drop leases": {
			do:       func(ctx context.Context, in *installation) error { return in.DropLeases(ctx, operator(), "") },
			finished: 1, points: 3,
			done: func(t *testing.T, in *installation) int {
				epoch, err := in.store.LeaseEpoch(t.Context())
				require.NoError(t, err)
				return int(epoch)
			},
			logged: func(t *testing.T, in *installation) int { return len(in.entries(t, kms.ActionDropLeases)) },
		},
	}
}

func rotateDefault(ctx context.Context, in *installation) error { return in.rotateOnce(ctx, "default") }
func rotateSystem(ctx context.Context, in *installation) error  { return in.rotateOnce(ctx, "system") }

func (in *installation) rotateOnce(ctx context.Context, name string) error {
	k, err := in.FindKeyring(ctx, name)
	if err != nil || k.Current > 1 {
		return err
	}
	_, err = in.RotateKeyring(ctx, operator(), name, k.Current)
	return err
}

func rewrapBoth(ctx context.Context, in *installation) error {
	for _, name := range []string{"default", "system"} {
		for after := ""; ; {
			r, err := in.RewrapPage(ctx, operator(), name, after, 3, noPause)
			if err != nil {
				return err
			}
			if len(r.Failed) > 0 {
				return fmt.Errorf("%v", r.Failed)
			}
			if after = r.Next; after == "" {
				break
			}
		}
	}
	return nil
}

func destroyStepwise(ctx context.Context, in *installation) error {
	steps := map[kms.KeyringStatus]func(v *kms.KeyringVersion) error{
		kms.KeyringEnabled: func(v *kms.KeyringVersion) error { _, err := in.DisableKeyring(ctx, operator(), v); return err },
		kms.KeyringDisabled: func(v *kms.KeyringVersion) error {
			_, err := in.ScheduleDestroy(ctx, operator(), v, kms.MinDestroyWait)
			return err
		},
		kms.KeyringScheduled: func(*kms.KeyringVersion) error {
			in.clock.Advance(kms.MinDestroyWait)
			return in.TendKeyrings(ctx)
		},
	}
	for {
		v, err := in.FindKeyringVersion(ctx, "default@1")
		if err != nil || v.Status == kms.KeyringDestroyed {
			return err
		}
		if err := steps[v.Status](v); err != nil {
			return err
		}
	}
}

func assignToNew(ctx context.Context, in *installation) error {
	if _, err := in.CreateKeyring(ctx, operator(), "prod"); err != nil && !errors.Is(err, kms.ErrExists) {
		return err
	}
	_, err := in.AssignKeyring(ctx, operator(), "web-1", "prod")
	return err
}

// assignedRows holds that a machine's volumes and secrets are in one keyring.
func assignedRows(t *testing.T, in *installation) int {
	m, err := in.FindNamed(t.Context(), "web-1")
	require.NoError(t, err)
	moved, prod := make(map[string]bool), 0
	require.NoError(t, in.store.Transact(t.Context(), kms.Key{Machine: m.ID, Recovery: true}, func(state kms.State) (kms.Outcome, error) {
		for _, v := range state.Volumes {
			moved[v.Keyring] = true
		}
		for _, s := range state.Secrets {
			moved[s.Keyring] = true
		}
		return kms.Outcome{}, nil
	}))
	require.Len(t, moved, 1, "all or none")
	if moved["prod"] {
		prod = 1
	}
	if _, err := in.FindKeyring(t.Context(), "prod"); err == nil {
		prod++
	}
	return prod
}

// factsOf adds up what the entries of an action count.
func (in *installation) factsOf(t *testing.T, action, fact string) (sum int) {
	t.Helper()
	for _, e := range in.entries(t, action) {
		for _, f := range e.Facts {
			if f.Name == fact {
				n, err := strconv.Atoi(f.Is)
				require.NoError(t, err)
				sum += n
			}
		}
	}
	return sum
}

// entries returns the newest entries of an action, or of all with an empty one, and
// holds that they are signed.
func (in *installation) entries(t *testing.T, action string) (entries []audit.Entry) {
	t.Helper()
	found, err := in.store.LatestEntries(t.Context(), "", action, 1000)
	require.NoError(t, err)
	for _, f := range found {
		e, err := in.Log.Verifier().Verify(f.Signed)
		require.NoError(t, err)
		entries = append(entries, e)
	}
	return entries
}

func (in *installation) keyring(t *testing.T, name string) *kms.Keyring {
	t.Helper()
	k, err := in.FindKeyring(t.Context(), name)
	require.NoError(t, err)
	return k
}

// work does the act over a folder.
func (a keyringAct) work(folder string, at *kill.Countdown) error {
	return doIn(folder, at, func(ctx context.Context, in *installation) error {
		at.Begin()
		return a.do(ctx, in)
	}, "a", "b")
}

// plaintexts are what machines and operators get, by volume.
type plaintexts struct{ keys, recovery map[string]string }

// plaintextsOf boots machines, and discloses the recovery keys of their volumes.
func (in *installation) plaintextsOf(t *testing.T, machines []*sim.Machine) plaintexts {
	t.Helper()
	p := plaintexts{make(map[string]string), make(map[string]string)}
	for _, m := range machines {
		m.Boot()
		release, err := m.Unlock(t.Context(), &direct{in.Service})
		require.NoError(t, err)
		for _, s := range release.Secrets {
			p.keys[s.Volume] = string(s.Key.Expose())
			key, err := in.DiscloseRecoveryKey(t.Context(), operator(), &kms.Volume{ID: s.Volume, Machine: m.TPM.Machine()}, 0)
			require.NoError(t, err)
			p.recovery[s.Volume] = string(key.Expose())
		}
	}
	return p
}

// enrolledIn makes an installation with two active machines.
func enrolledIn(t *testing.T) (folder string, machines []*sim.Machine, want plaintexts) {
	t.Helper()
	folder = rootsIn(t)
	in, err := openIn(folder, nil, "a", "b")
	require.NoError(t, err)
	defer in.close(t)
	for _, name := range []string{"web-1", "web-2"} {
		m, err := sim.NewMachine(name, recordedBoot(t, "ovmf-uki"), in.ServiceKey(), 2)
		require.NoError(t, err)
		require.NoError(t, m.Enroll(t.Context(), &direct{in.Service}))
		_, err = in.ApproveMachine(t.Context(), operator(), m.TPM.Machine(), kms.Approval{EKHash: m.TPM.Machine()})
		require.NoError(t, err)
		machines = append(machines, m)
	}
	want = in.plaintextsOf(t, machines)
	require.Len(t, want.keys, 4)
	return folder, machines, want
}

// An act on keyrings that dies at any step leaves all secrets and all versions whole,
// with what the rows and the audit log say of it alike, and can be done again.
func TestKeyringActsSurviveKills(t *testing.T) {
	enrolled, machines, want := enrolledIn(t)
	for name, act := range keyringActs() {
		t.Run(name, func(t *testing.T) {
			pristine := kill.Copy(t, enrolled)
			for _, step := range act.before {
				require.NoError(t, doIn(pristine, nil, step, "a", "b"))
			}
			killed := kill.AtEachPoint(t, name, pristine, func(folder string) {
				mustOpen(t, folder, "b").close(t)
				act.isWhole(t, folder, "a", machines, want)
				require.NoError(t, act.work(folder, nil), "it can be done again")
				assert.GreaterOrEqual(t, act.isWhole(t, folder, "b", machines, want), act.finished)
			})
			assert.Equal(t, act.points, killed)
		})
	}
}

// isWhole holds a folder, as one root alone opens it, against what it must be after
// every kill, and returns how much of the act is done.
func (a keyringAct) isWhole(t *testing.T, folder, root string, machines []*sim.Machine, want plaintexts) (done int) {
	t.Helper()
	in := mustOpen(t, folder, root)
	defer in.close(t)
	assert.Equal(t, want, in.plaintextsOf(t, machines))
	in.rowsAreWhole(t)
	done = a.done(t, in)
	assert.Equal(t, done, a.logged(t, in), "what the audit log says is what there is")
	return done
}

func (in *installation) rowsAreWhole(t *testing.T) {
	t.Helper()
	storetest.RequireCensus(t, in.store)
	storetest.RequireLog(t, in.store, in.Log)
	require.NotEmpty(t, in.entries(t, ""), "all signatures verify")
	rows, err := in.store.Keyrings(t.Context())
	require.NoError(t, err)
	for _, v := range rows {
		wrappers := 2
		if v.Status == kms.KeyringDestroyed {
			wrappers = 0
		}
		assert.Len(t, v.Wrappers, wrappers, "%s@%d, which is %s", v.Keyring, v.Version, v.Status)
	}
}
