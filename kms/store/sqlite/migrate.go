package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"
)

// applicationID stands in the database's header (SQLite, file format, section
// 1.3.16) and tells a store from other databases: "Kwri".
const applicationID = 0x4b777269

//go:embed migrations/*.sql
var migrationFiles embed.FS

// version is what a database says of itself in its header.
type version struct {
	application int64
	schema      int64
}

// schemaVersion counts the migrations: each sets user_version to its number.
func schemaVersion() (int64, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	return int64(len(names)), err
}

func readVersion(ctx context.Context, db *sql.DB) (v version, err error) {
	err = errors.Join(
		db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&v.application),
		db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v.schema),
	)
	return v, err
}

// check refuses what is not a store that this version can read.
func (v version) check() error {
	known, err := schemaVersion()
	if err != nil {
		return err
	}
	switch {
	case v.application != applicationID:
		return errors.New("the file is a database, but not a keywright store")
	case v.schema > known:
		return fmt.Errorf("a newer version of keywright made it (schema %d, this one knows %d): "+
			"run that version, or restore a backup of this one's", v.schema, known)
	}
	return nil
}

// migrate brings the schema up to date, each step in a transaction of its own.
func migrate(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	if err := mark(ctx, db); err != nil {
		return err
	}
	v, err := readVersion(ctx, db)
	if err != nil {
		return err
	}
	if err := v.check(); err != nil {
		return err
	}
	results, err := applyMigrations(ctx, db)
	for _, r := range results {
		log.Info("migrated the store", "step", r.Source.Path, "took", r.Duration)
	}
	return err
}

// mark enters the application id into an empty database.
func mark(ctx context.Context, db *sql.DB) error {
	var objects int64
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&objects); err != nil {
		return err
	}
	v, err := readVersion(ctx, db)
	if err != nil || objects > 0 || v != (version{}) {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	return err
}

func applyMigrations(ctx context.Context, db *sql.DB) ([]*goose.MigrationResult, error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrating its schema: %w", err)
	}
	return results, nil
}
