package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

const (
	// maxWaiting bounds the changes that wait; callers beyond it wait to be
	// let in, for as long as their context allows.
	maxWaiting = 1024
	// maxGroup bounds the changes of one commit, and so the time that the
	// first of them waits for the last.
	maxGroup = 256
	// pruned is how many expired redemptions a group deletes at most: more than
	// it can add, so that a backlog shrinks.
	pruned = 2 * maxGroup
)

// writer owns the one connection that writes. Its goroutine takes the changes
// that wait, runs each in a savepoint of one transaction, commits, and answers.
// There is no delay to make groups larger: while one is being synced to disk,
// the next one gathers.
type writer struct {
	db      *sql.DB
	conn    *sql.Conn
	rows    *sqlitedb.Queries // on conn
	control control
	clock   func() time.Time
	log     *slog.Logger

	queue   chan *change
	closing chan struct{}
	stopped chan struct{} // closed when the goroutine has ended
	failed  atomic.Pointer[error]
	last    atomic.Pointer[error] // see [Store.LastFailure]
}

func openWriter(ctx context.Context, c Config) (*writer, error) {
	db, err := openDB(c.Path, writerOptions())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	w := &writer{
		db: db, clock: c.Clock, log: c.Logger,
		queue:   make(chan *change, maxWaiting),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if err := w.prepare(ctx, c.Logger); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go w.run()
	return w, nil
}

func (w *writer) prepare(ctx context.Context, log *slog.Logger) (err error) {
	if err := checkJournal(ctx, w.db); err != nil {
		return err
	}
	if err := migrate(ctx, w.db, log); err != nil {
		return err
	}
	if w.conn, err = w.db.Conn(ctx); err != nil {
		return err
	}
	if w.control, err = prepareControl(ctx, w.conn); err != nil {
		return err
	}
	w.rows, err = sqlitedb.Prepare(ctx, w.conn)
	return err
}

// checkJournal refuses a file system on which SQLite can't share memory.
func checkJournal(ctx context.Context, db *sql.DB) error {
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("its file system supports no write-ahead log (journal mode %s): put it on a local disk", mode)
	}
	return nil
}

// close lets the group at hand end and closes the connection.
func (w *writer) close() error {
	close(w.closing)
	<-w.stopped
	return errors.Join(w.rows.Close(), w.control.close(), w.conn.Close(), w.db.Close())
}

func (w *writer) failure() error {
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (w *writer) run() {
	defer close(w.stopped)
	for {
		select {
		case <-w.closing:
			return
		case first := <-w.queue:
			w.commit(w.gather(first))
		}
	}
}

// gather takes what waits, up to a group, without waiting for more.
func (w *writer) gather(first *change) []*change {
	var group []*change
	for c := first; ; {
		if c.claim() {
			group = append(group, c)
		}
		if len(group) == maxGroup {
			return group
		}
		select {
		case c = <-w.queue:
		default:
			return group
		}
	}
}

// commit carries out a group and answers it.
func (w *writer) commit(group []*change) {
	results := make([]error, len(group))
	err := w.failure()
	if err == nil {
		err = w.transact(group, results)
	}
	for i, c := range group {
		if err != nil {
			results[i] = err
		}
		w.remember(results[i])
		c.done <- results[i]
	}
}

// transact runs a group in one transaction. Its error is every member's: then
// nothing was written, and what the members have seen of each other is void.
func (w *writer) transact(group []*change, results []error) error {
	if err := w.control.begin(); err != nil {
		return w.giveUp("beginning", err)
	}
	for i, c := range group {
		var err error
		if results[i], err = w.savepoint(c); err != nil {
			return w.giveUp("undoing a change of", err)
		}
	}
	if err := w.prune(); err != nil {
		return w.giveUp("pruning in", err)
	}
	if err := w.control.commit(); err != nil {
		return w.giveUp("committing", err)
	}
	return nil
}

// savepoint runs one change. Its result is the caller's; err is not nil where
// the transaction itself was lost.
func (w *writer) savepoint(c *change) (result, err error) {
	if err := w.control.savepoint(); err != nil {
		return nil, err
	}
	result = c.apply(w.rows)
	if result != nil {
		// Errors such as a full disk undo the whole transaction on their own;
		// then there is no savepoint to go back to, and the group ends here,
		// before a statement could be carried out outside of a transaction.
		if err := w.control.undo(); err != nil {
			return nil, errors.Join(result, err)
		}
	}
	return result, w.control.release()
}

func (w *writer) prune() error {
	return w.rows.PruneRedemptions(context.Background(), sqlitedb.PruneRedemptionsParams{
		Now: w.clock().UnixMicro(), Most: pruned,
	})
}

// giveUp rolls the transaction back and returns the error of its group. Unless
// the cause left the disk as it was, no more changes are taken: what a failed
// sync left on disk is found out only by opening the store anew.
func (w *writer) giveUp(doing string, cause error) error {
	rollback := w.control.rollback()
	err := fmt.Errorf("%s a transaction: %w: %w", doing, kms.ErrUnavailable, cause)
	if rollback == nil && isTransient(cause) {
		return err
	}
	failure := fmt.Errorf("the store takes no changes since writing to disk failed: %w: %w",
		kms.ErrUnavailable, errors.Join(cause, rollback))
	w.failed.Store(&failure)
	w.log.Error("the store takes no more changes", "cause", failure)
	return err
}
