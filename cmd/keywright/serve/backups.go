package serve

import (
	"context"
	"fmt"
	"os"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/server"
	"keywright.dev/kms/store/sqlite"
)

// backups are the store's backups; when there was one, the audit log knows.
type backups struct {
	store *sqlite.Store
	log   *audit.Verifier
}

func (b backups) Backup(ctx context.Context, path string) (int64, error) {
	if err := b.store.Backup(ctx, path); err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("reading the size of the backup: %w", err)
	}
	return info.Size(), nil
}

func (b backups) CheckBackup(path string) error { return sqlite.CheckBackup(path) }

// recentBackups bounds the attempts among which the last that succeeded is
// looked for.
const recentBackups = 20

func (b backups) LastBackup(ctx context.Context) (time.Time, error) {
	found, err := b.store.LatestEntries(ctx, "", server.ActionBackup, recentBackups)
	if err != nil {
		return time.Time{}, err
	}
	for _, f := range found {
		entry, err := b.log.Verify(f.Signed)
		if err != nil {
			return time.Time{}, err
		}
		if taken, done := server.BackupTaken(entry); done {
			return taken, nil
		}
	}
	return time.Time{}, nil
}
