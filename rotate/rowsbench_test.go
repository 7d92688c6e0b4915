package rotate_test

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // rows are multiplied without the store

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/kms/store/storetest"
	"keywright.dev/rotate"
)

// manyMachines have two volumes each, and a volume two secrets.
const manyMachines = 500_000

// BenchmarkPlanOfRows plans over a million volumes in a store on disk: in a fleet whose
// secrets are of any age up to 350 days, of which a few are due at a time, and two years
// later, when all are.
func BenchmarkPlanOfRows(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store.db")
	manyVolumes(b, path)
	s, err := sqlite.Open(b.Context(), sqlite.Config{Path: path, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	for _, c := range []struct {
		name string
		now  time.Time
	}{{"some due", storetest.Epoch().AddDate(0, 0, 350)}, {"all due", storetest.Epoch().AddDate(3, 0, 0)}} {
		b.Run(c.name, func(b *testing.B) {
			peak := rotate.NewPeak()
			pause := func(context.Context) (bool, error) { peak.Look(); return false, nil }
			for b.Loop() {
				plan, err := rotate.Make(rotate.State{
					Volumes: rotate.VolumesDue(b.Context(), s, rotate.Default(), c.now, nobody, c.now, pause),
				}, rotate.Default(), c.now)
				require.NoError(b, err)
				require.NotEmpty(b, plan.Steps)
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/plan")
			b.ReportMetric(peak.Megabytes(), "peak-MB")
		})
	}
}

// manyVolumes makes a store and multiplies what one machine has in it.
func manyVolumes(b *testing.B, path string) {
	b.Helper()
	s, err := sqlite.Open(b.Context(), sqlite.Config{Path: path, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	require.NoError(b, storetest.AddKeyring(s))
	m := storetest.NewMachine(0)
	v := storetest.NewVolume(m.ID, 0)
	v.Foreign, v.Copied, v.Inventory = false, false, nil
	o := kms.Outcome{Machine: m, Volumes: []kms.Volume{v}, Secrets: []kms.Secret{storetest.NewSecret(v.ID, 1), storetest.NewRecoveryKey(v.ID, 1)}}
	require.NoError(b, s.Transact(b.Context(), kms.Key{}, func(kms.State) (kms.Outcome, error) { return o, nil }))
	require.NoError(b, s.Close())

	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=synchronous(0)&_pragma=journal_mode(MEMORY)&_pragma=cache_size(-300000)")
	require.NoError(b, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	multiply(b, db, "machines", manyMachines, map[string]string{
		"num": "n + 1", "id": idOf("n", 64), "name": "'web-' || n", "ak_name": "CAST(n AS BLOB)",
	})
	multiply(b, db, "machine_states", manyMachines, map[string]string{"machine": "n + 1"})
	multiply(b, db, "volumes", 2*manyMachines, map[string]string{
		"id": idOf("n", 32), "machine": idOf("(n + 1) / 2", 64), "uuid": "CAST(n AS TEXT)", "volume_key_digest": "CAST(n AS BLOB)",
	})
	multiply(b, db, "secrets", 2*manyMachines, map[string]string{"volume": idOf("n", 32), "created": "created + n % 350 * 86400000000"})
}

// idOf returns SQL for an id of so many digits, which are not in the order of numbers.
func idOf(number string, digits int) string {
	return fmt.Sprintf("printf('%%08x%%0%dx', (%s) * 2654435761 & 4294967295, %s)", digits-8, number, number)
}

// multiply adds to a table the rows that it has, so many times, with some columns by
// the number n of the time.
func multiply(b *testing.B, db *sql.DB, table string, times int, by map[string]string) {
	b.Helper()
	rows, err := db.QueryContext(b.Context(), "SELECT name FROM pragma_table_info(?)", table)
	require.NoError(b, err)
	defer rows.Close()
	var columns []string
	for rows.Next() {
		var name string
		require.NoError(b, rows.Scan(&name))
		columns = append(columns, cmp.Or(by[name], name))
	}
	require.NoError(b, rows.Err())
	for _, statement := range []string{
		"CREATE TEMP TABLE one AS SELECT * FROM main." + table,
		fmt.Sprintf("WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < %d) INSERT INTO main.%s SELECT %s FROM many, one",
			times, table, strings.Join(columns, ", ")),
		"DROP TABLE one",
	} {
		_, err = db.ExecContext(b.Context(), statement)
		require.NoError(b, err, statement)
	}
}
