//go:build integration

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/test/sim"
)

// killed is a service that is killed and started again over one data folder.
type killed struct {
	t       *testing.T
	data    string
	config  string
	command *exec.Cmd
	*child
}

func newKilled(t *testing.T) *killed {
	t.Helper()
	dir := t.TempDir()
	k := &killed{t: t, data: filepath.Join(dir, "d"), config: filepath.Join(dir, "loopback.toml")}
	require.NoError(t, os.WriteFile(k.config, []byte("[server]\nguest_listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n"), 0o600))
	k.start()
	t.Cleanup(func() { k.kill() })
	return k
}

func (k *killed) start() {
	k.t.Helper()
	k.command = exec.Command("keywright", "server", "--config", k.config, "--data", k.data)
	k.child = launch(k.t, k.command)
}

func (k *killed) kill() {
	_ = k.command.Process.Kill() // it may be gone
	_ = k.command.Wait()
}

func (k *killed) operator() *api.OperatorClient {
	operator := api.NewOperatorClient(k.socket)
	k.t.Cleanup(operator.Close)
	return operator
}

// enroll returns an active machine.
func (k *killed) enroll(name string) *sim.Machine {
	k.t.Helper()
	log, err := sim.ReadLog(filepath.Join("..", "..", "kms", "attest", "testdata", "eventlogs", "ovmf-uki.bin"))
	require.NoError(k.t, err)
	m, err := sim.NewMachine(name, log, k.pin, 2)
	require.NoError(k.t, err)
	require.NoError(k.t, m.Enroll(k.t.Context(), k.guest(k.t, "127.0.0.9")))
	_, err = k.operator().ApproveMachine(k.t.Context(), name, api.ApproveMachine{EKHash: m.TPM.Machine()})
	require.NoError(k.t, err)
	return m
}

// keysOf boots a machine and returns what it got, by volume.
func (k *killed) keysOf(m *sim.Machine) map[string]string {
	k.t.Helper()
	m.Boot()
	release, err := m.Unlock(k.t.Context(), k.guest(k.t, "127.0.0.9"))
	require.NoError(k.t, err)
	keys := make(map[string]string)
	for _, s := range release.Secrets {
		keys[s.Volume] = string(s.Key.Expose())
	}
	return keys
}

// rewrap goes through the pages until the end.
func rewrap(ctx context.Context, o *api.OperatorClient, keyring string) (api.Rewrapped, error) {
	for after := ""; ; {
		page, err := o.RewrapKeyring(ctx, keyring, api.RewrapKeyring{After: after, Limit: 1})
		if after = page.Next; err != nil || after == "" {
			return page, err
		}
	}
}

// live does with a keyring what there is to do, over and over, until the service is
// gone.
func live(ctx context.Context, o *api.OperatorClient, keyring string) error {
	for {
		shown, err := o.Keyring(ctx, keyring)
		if err == nil {
			_, err = o.RotateKeyring(ctx, keyring, shown.Current)
		}
		if err == nil {
			_, err = rewrap(ctx, o, keyring)
		}
		for _, v := range shown.Versions {
			ref := fmt.Sprintf("%s@%d", keyring, v.Version)
			if err == nil && v.Status == "enabled" {
				_, err = o.DisableKeyring(ctx, ref)
			}
			if err == nil && v.Status == "disabled" {
				_, err = o.DestroyKeyring(ctx, ref, api.DestroyKeyring{})
			}
		}
		if err != nil {
			return err
		}
	}
}

// TestKilledWithKeyrings kills the service at any point of a rotation, a rewrap, and
// changes of state. Started again, it has lost nothing: every machine gets the keys
// that it had, and the rewrap goes on from what the rows say.
func TestKilledWithKeyrings(t *testing.T) {
	k := newKilled(t)
	var machines []*sim.Machine
	var keys []map[string]string
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		machines = append(machines, k.enroll(name))
		keys = append(keys, k.keysOf(machines[len(machines)-1]))
	}
	for _, keyring := range []string{"default", "default", "default", "system", "default", "system"} {
		ended := make(chan error, 1)
		o := k.operator()
		go func() { ended <- live(context.Background(), o, keyring) }()
		time.Sleep(rand.N(250 * time.Millisecond)) // when, is what this test varies
		k.kill()
		var refused *api.Error
		require.NotErrorAs(t, <-ended, &refused, "nothing was refused")
		k.start()
		for i, m := range machines {
			require.Equal(t, keys[i], k.keysOf(m))
		}
		o = k.operator()
		done, err := rewrap(t.Context(), o, keyring)
		require.NoError(t, err)
		assert.Zero(t, done.Remaining)
		shown, err := o.Keyring(t.Context(), keyring)
		require.NoError(t, err)
		t.Logf("%s: %d versions", keyring, len(shown.Versions))
		for _, v := range shown.Versions {
			if keyring == "default" && v.Version == shown.Current {
				assert.Equal(t, int64(12), v.Dependents)
			} else if v.Version != shown.Current {
				assert.Zero(t, v.Dependents)
			}
		}
		for i, m := range machines {
			require.Equal(t, keys[i], k.keysOf(m))
		}
	}
}
