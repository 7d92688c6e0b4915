//go:build cgo

package pkcs11

import (
	"context"
	"fmt"

	"keywright.dev/kms/root"
)

// job is work on a connection that its caller may not wait for.
type job[T any] struct {
	do   func(context.Context, *connection) (T, error)
	drop func(T) // of a result that comes too late; may be nil
	end  func()  // when do is not called any more; may be nil
}

type answer[T any] struct {
	value T
	err   error
}

// call does a job in a goroutine of its own and waits until it or ctx ends.
func call[T any](ctx context.Context, r *Root, j job[T]) (T, error) {
	var none T
	if err := r.begin(ctx); err != nil {
		j.ended()
		return none, err
	}
	done := make(chan answer[T])
	go func() {
		defer func() { <-r.calls }()
		value, err := attempt(ctx, r, j)
		j.ended()
		select {
		case done <- answer[T]{value, err}:
		case <-ctx.Done():
			if j.drop != nil && err == nil {
				j.drop(value)
			}
		}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return none, fmt.Errorf("%w: the token has not answered: %w", root.ErrUnavailable, ctx.Err())
	}
}

func (j job[T]) ended() {
	if j.end != nil {
		j.end()
	}
}

func (r *Root) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", root.ErrUnavailable, err)
	}
	select {
	case r.calls <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: the token has not answered the %d calls before: %w", root.ErrUnavailable, maxCalls, ctx.Err())
	}
}

// attempt does the job, and once more on a new connection where the first broke.
func attempt[T any](ctx context.Context, r *Root, j job[T]) (value T, err error) {
	const attempts = 2
	for range attempts {
		var c *connection
		if c, err = r.connection(); err != nil {
			break
		}
		value, err = j.do(ctx, c)
		r.leave(c, lost(err))
		if !lost(err) || ctx.Err() != nil {
			break
		}
	}
	return value, classed(err)
}
