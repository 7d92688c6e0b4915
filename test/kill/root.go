package kill

import (
	"context"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Root returns a root of trust with a point before and after each of its calls.
func Root(r root.Root, at *Countdown) root.Root { return deadlyRoot{r, at} }

type deadlyRoot struct {
	root.Root
	at *Countdown
}

func (d deadlyRoot) Wrap(ctx context.Context, key secret.Bytes, c []byte) (root.Wrapped, error) {
	d.at.Point()
	defer d.at.Point()
	return d.Root.Wrap(ctx, key, c)
}

func (d deadlyRoot) Unwrap(ctx context.Context, ciphertext, c []byte) (secret.Bytes, error) {
	d.at.Point()
	defer d.at.Point()
	return d.Root.Unwrap(ctx, ciphertext, c)
}
