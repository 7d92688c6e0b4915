// Package jobs owns the queue through which a service carries out its own steps of
// rotations: River, on a database file of its own.
//
// Invariants:
//   - A job is a hint: it says that a step may be begun, and begins nothing that nobody
//     waits for. So a job that is doubled, or is left from before, changes nothing; one
//     that is lost is given again.
//   - Of each step the work is called once, whatever becomes of its jobs.
//   - What is in the file matters to nobody: it may be deleted whenever the service does
//     not run, and is made anew where it does not open.
//
// It refuses to know what steps do, and keeps nothing of what came of them.
package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	driver "modernc.org/sqlite"
)

// Queue is one River, which is made to work by one round of steps at a time.
type Queue struct {
	db     *sql.DB
	logger *slog.Logger
	wait   waiting
}

// Config says where a queue is and what it is given.
type Config struct {
	// Path of the database file.
	Path   string
	Logger *slog.Logger // hears what River warns of
}

// Open opens the queue, or makes it. A file that does not open is deleted: nothing
// that is in it is missed.
func Open(ctx context.Context, c Config) (*Queue, error) {
	c.Logger = slog.New(warnings{c.Logger.Handler()})
	q, err := open(ctx, c)
	if err != nil && ctx.Err() == nil {
		if err = remove(c.Path); err == nil {
			q, err = open(ctx, c)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the queue of rotations %s: %w", c.Path, err)
	}
	return q, nil
}

func open(ctx context.Context, c Config) (*Queue, error) {
	db, err := openDB(c.Path)
	if err != nil {
		return nil, err
	}
	migrator, err := rivermigrate.New(riversqlite.New(db), &rivermigrate.Config{Logger: c.Logger})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Queue{db: db, logger: c.Logger, wait: defaultWaiting()}, nil
}

// openDB opens the file with the one connection that River wants.
func openDB(path string) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	// A power cut may take jobs along: they are given again.
	query := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)", "trusted_schema(0)"}}
	name := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	connector, err := driver.NewConnector(name.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

func remove(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Close closes the file. No round may be under way.
func (q *Queue) Close() error { return q.db.Close() }

// client is a River that works on jobs of one round.
func (q *Queue) client(r *round) (*river.Client[*sql.Tx], error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &worker{round: r}); err != nil {
		return nil, err
	}
	return river.NewClient(riversqlite.New(q.db), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: maxAbreast}}, Workers: workers, Logger: q.logger,
		// A rewrap takes as long as it takes, and a step that failed is for the next plan.
		JobTimeout: -1, MaxAttempts: 1, FetchPollInterval: q.wait.poll, FetchCooldown: q.wait.poll,
	})
}
