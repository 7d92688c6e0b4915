package local

import (
	"context"
	"errors"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Await returns what work returns, or [root.ErrUnavailable] once ctx has ended:
// then work, which cannot be stopped, goes on, and its result is wiped.
func Await(ctx context.Context, work func() (secret.Bytes, error)) (secret.Bytes, error) {
	type result struct {
		data secret.Bytes
		err  error
	}
	if err := ctx.Err(); err != nil {
		return secret.Bytes{}, errors.Join(root.ErrUnavailable, err)
	}
	done := make(chan result)
	go func() {
		data, err := work()
		select {
		case done <- result{data, err}:
		case <-ctx.Done():
			data.Wipe()
		}
	}()
	select {
	case got := <-done:
		return got.data, got.err
	case <-ctx.Done():
		return secret.Bytes{}, errors.Join(root.ErrUnavailable, ctx.Err())
	}
}
