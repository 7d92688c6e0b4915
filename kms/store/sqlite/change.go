package sqlite

import (
	"context"
	"fmt"
	"sync/atomic"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// change is one caller's part of a group.
type change struct {
	// apply reads and writes rows, on the writer's goroutine.
	apply func(*sqlitedb.Queries) error
	// calls are what apply wants run on the caller's goroutine.
	calls   chan func()
	done    chan error // buffered: the answer
	claimed atomic.Bool
}

// claim takes the change for a group, or for its caller who gave up: whoever is
// first has it.
func (c *change) claim() bool { return c.claimed.CompareAndSwap(false, true) }

// write queues a change and waits until it is durable. A context that ends
// takes it back as long as it was not picked up.
func (w *writer) write(ctx context.Context, apply func(*sqlitedb.Queries) error) error {
	c := &change{apply: apply, done: make(chan error, 1)}
	return w.submit(ctx, c)
}

func (w *writer) submit(ctx context.Context, c *change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case w.queue <- c:
		return w.await(ctx, c)
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closing:
		return errClosed()
	}
}

func (w *writer) await(ctx context.Context, c *change) error {
	canceled := ctx.Done()
	for {
		select {
		case err := <-c.done:
			return err
		case call := <-c.calls:
			call()
		case <-canceled:
			if c.claim() {
				return ctx.Err()
			}
			canceled = nil
		case <-w.stopped:
			return c.afterStop()
		}
	}
}

// afterStop returns the answer of a change that was in the last group.
func (c *change) afterStop() error {
	select {
	case err := <-c.done:
		return err
	default:
		return errClosed()
	}
}

func errClosed() error { return fmt.Errorf("the store is closing: %w", kms.ErrUnavailable) }
