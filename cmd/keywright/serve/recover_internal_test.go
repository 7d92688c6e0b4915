package serve

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/root/quorum"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/test/kill"
)

func TestMain(m *testing.M) { kill.Main(m, map[string]kill.Work{"recover": recoverIn}) }

func recoveryIn(folder string) (*Recovery, error) {
	c := config.Default()
	c.Server.Data = filepath.Join(folder, "data")
	return OpenRecovery(context.Background(), RecoveryOptions{
		Config: c, To: "file://" + filepath.Join(folder, "new.key"), Logger: slog.New(slog.DiscardHandler), Clock: time.Now, Uptime: Uptime,
	})
}

// recoverIn recovers the store of a folder by the two identities in it.
func recoverIn(folder string, at *kill.Countdown) error {
	r, err := recoveryIn(folder)
	if err != nil {
		return err
	}
	defer r.Close()
	at.Begin()
	r.to = kill.Root(r.to, at)
	results, err := openedBy(r, folder, "Alice", "Bob")
	if err != nil {
		return err
	}
	if lacking := r.Lacking(results); len(lacking) > 0 {
		return fmt.Errorf("lacking %v", lacking)
	}
	out, err := r.Finish(context.Background(), results)
	if err != nil || len(out.Failed) > 0 {
		return fmt.Errorf("%w %v", err, out.Failed)
	}
	return nil
}

// openedBy has custodians open the shares that the store has.
func openedBy(r *Recovery, folder string, names ...string) ([]quorum.Result, error) {
	files, err := r.ShareFiles(context.Background())
	if err != nil {
		return nil, err
	}
	var given []quorum.Given
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(folder, name+".id"))
		if err != nil {
			return nil, err
		}
		identities, err := quorum.ParseIdentities(secret.New(text))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if f.Custodian != name {
				continue
			}
			opened, _, err := quorum.OpenShares(f.Name, f.Text, identities...)
			if err != nil {
				return nil, err
			}
			given = append(given, opened...)
		}
	}
	results, faults := quorum.Recover(r.Entries(), given)
	if len(faults) > 0 {
		return nil, faults[0]
	}
	return results, nil
}

// installation makes the store of a service whose root key is lost, with
// custodians and a new root.
func installation(t *testing.T) (folder string) {
	t.Helper()
	return installationOf(t, "custodians")
}

// installationOf names files of custodians: all three, or the first two as former.
func installationOf(t *testing.T, quorums ...string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	var custodians, former string
	for _, name := range []string{"Alice", "Bob", "Carol"} {
		identity, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		former = custodians
		custodians += fmt.Sprintf("%s # %s\n", identity.Recipient(), name)
		require.NoError(t, os.WriteFile(filepath.Join(folder, name+".id"), []byte(identity.String()), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(folder, "custodians"), []byte(custodians), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "former"), []byte(former), 0o600))
	for _, name := range []string{"lost.key", "new.key"} {
		require.NoError(t, file.Create(filepath.Join(folder, name), rand.Reader))
	}
	c := config.Default()
	c.Server.Data, c.Server.GuestListen, c.Server.MetricsListen = filepath.Join(folder, "data"), "127.0.0.1:0", "127.0.0.1:0"
	c.Server.Roots = []string{"file://" + filepath.Join(folder, "lost.key")}
	for _, name := range quorums {
		c.Server.Roots = append(c.Server.Roots, "age-quorum://"+filepath.Join(folder, name)+"?threshold=2")
	}
	s, err := Open(t.Context(), Options{Config: c, Version: "test", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Clock: time.Now, Uptime: Uptime})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(folder, "lost.key")))
	return folder
}

// A recovery that dies at any call of the new root leaves a store that the same
// custodians recover again.
func TestRecoverySurvivesKills(t *testing.T) {
	killed := kill.AtEachPoint(t, "recover", installation(t), func(folder string) {
		require.NoError(t, recoverIn(folder, nil), "another run finishes")
		opensAlone(t, folder)
	})
	assert.GreaterOrEqual(t, killed, 8, "two keyring versions are wrapped and read back")
}

// opensAlone holds that the new root opens everything.
func opensAlone(t *testing.T, folder string) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: StorePath(filepath.Join(folder, "data"))})
	require.NoError(t, err)
	defer store.Close()
	to, err := file.Open(filepath.Join(folder, "new.key"))
	require.NoError(t, err)
	keys, err := kms.OpenKeys(t.Context(), kms.KeysConfig{Store: store, Roots: []root.Root{to}, Clock: time.Now, Uptime: Uptime, Random: rand.Reader})
	require.NoError(t, err)
	defer keys.Wipe()
	for _, l := range keys.Leases() {
		require.NoError(t, l.Err)
		require.Positive(t, l.Left, "%s@%d opens", l.Keyring, l.Version)
	}
}

// What custodians give of one keyring alone is recovered, and the other is named;
// of the system keyring they must.
func TestRecoveryInPart(t *testing.T) {
	folder := installation(t)
	r, err := recoveryIn(folder)
	require.NoError(t, err)
	defer r.Close()
	results, err := openedBy(r, folder, "Alice")
	require.NoError(t, err)
	assert.Equal(t, []string{"keyring/system@1"}, r.Lacking(results))
	_, err = r.Finish(t.Context(), results)
	require.ErrorContains(t, err, "too few shares")

	results, err = openedBy(r, folder, "Alice", "Carol")
	require.NoError(t, err)
	for i := range results {
		if results[i].Name == "keyring/default@1" {
			results[i].Err = quorum.ErrTooFew
		}
	}
	assert.Empty(t, r.Lacking(results))
	out, err := r.Finish(t.Context(), results)
	require.NoError(t, err)
	require.Len(t, out.Done, 1)
	require.Len(t, out.Failed, 1)
	assert.Equal(t, kms.DefaultKeyring, out.Failed[0].Keyring)
}

// While a former quorum still holds shares, its files do not take the names of
// those of the one that took its place.
func TestSharesOfTwoQuorumsHaveNamesOfTheirOwn(t *testing.T) {
	r, err := recoveryIn(installationOf(t, "custodians", "former"))
	require.NoError(t, err)
	defer r.Close()
	files, err := r.ShareFiles(t.Context())
	require.NoError(t, err)
	names := make(map[string]bool)
	for _, f := range files {
		assert.False(t, names[f.Name], f.Name)
		names[f.Name] = true
	}
	assert.Len(t, names, 3+2)
}
