package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// readers bounds the connections that queries run on.
const readers = 4

// Store is what package kms needs of a store, on one SQLite database. It is
// safe for concurrent use.
type Store struct {
	path   string
	lock   *os.File
	writer *writer
	read   *sql.DB
	rows   *sqlitedb.Queries // on read

	// Semaphores of one: at a time one caller extends the tree, one backs up.
	sequencing chan struct{}
	backingUp  chan struct{}
}

var (
	_ kms.Transactor  = (*Store)(nil)
	_ kms.ServiceKeys = (*Store)(nil)
	_ kms.Sequencer   = (*Store)(nil)
	_ kms.Reader      = (*Store)(nil)
	_ kms.LogReader   = (*Store)(nil)
)

// Config says where a store is and what it is given.
type Config struct {
	// Path of the database file. Beside it stand its write-ahead log (-wal,
	// -shm) and its lock (.lock). What is missing is made, the folder with mode
	// 0700 and the files with 0600.
	Path string
	// Clock says whether a redemption may be forgotten; time.Now where it is nil.
	Clock func() time.Time
	// Logger hears of migrations and of a disk that fails; nil drops that.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Open opens the store, makes it where there is none, completes a [Restore] that
// was interrupted, and brings the schema up to date. It refuses a store that
// another process has open, one that a newer version made, and a file that is
// no store.
func Open(ctx context.Context, c Config) (*Store, error) {
	c = c.withDefaults()
	s := &Store{path: c.Path, sequencing: make(chan struct{}, 1), backingUp: make(chan struct{}, 1)}
	if err := s.open(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("opening store %s: %w", c.Path, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, c Config) (err error) {
	if s.lock, err = claim(c.Path); err != nil {
		return err
	}
	if _, err := completeRestore(c.Path); err != nil {
		return err
	}
	if err := makeFile(c.Path); err != nil {
		return err
	}
	if err := inspectStore(c.Path); err != nil {
		return err
	}
	if s.writer, err = openWriter(ctx, c); err != nil {
		return err
	}
	if s.read, err = openDB(c.Path, readerOptions()); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	s.rows, err = sqlitedb.Prepare(ctx, s.read)
	return err
}

// Close waits for the group being committed, answers what still waits with
// [kms.ErrUnavailable], and closes the database.
func (s *Store) Close() error {
	var errs []error
	if s.rows != nil {
		errs = append(errs, s.rows.Close())
	}
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	// The writer last: the last connection folds the write-ahead log in.
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing store %s: %w", s.path, err)
	}
	return nil
}

// Err returns why the store takes no more changes, or nil. Once writing to disk
// has failed, what the disk holds is known only after the store was opened
// anew: end the process.
func (s *Store) Err() error { return s.writer.failure() }

// acquire enters a semaphore of one.
func acquire(ctx context.Context, semaphore chan struct{}) (release func(), err error) {
	select {
	case semaphore <- struct{}{}:
		return func() { <-semaphore }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
