package root

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"keywright.dev/kms/secret"
)

// Probe asks a root whether it works, by having it decrypt. The zero value of
// what it keeps is made at the first question.
type Probe struct {
	Root   Root
	Random io.Reader

	mu     sync.Mutex
	canary secret.Bytes
	known  Wrapped
}

var errOtherKey = errors.New("it decrypted to something else than was encrypted")

// probeContext is one that no keyring version has.
const probeContext = "keywright/probe/v1"

// Ask returns nil where the root decrypted just now, else an error of its
// classes. It costs one call of the root, the first time two.
func (p *Probe) Ask(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known.Ciphertext == nil {
		if err := p.prepare(ctx); err != nil {
			return fmt.Errorf("probing %s: %w", p.Root.URI(), err)
		}
	}
	got, err := p.Root.Unwrap(ctx, p.known.Ciphertext, []byte(probeContext))
	if err != nil {
		return fmt.Errorf("probing %s: %w", p.Root.URI(), err)
	}
	defer got.Wipe()
	if !got.Equal(p.canary) {
		return fmt.Errorf("probing %s: %w", p.Root.URI(), errOtherKey)
	}
	return nil
}

func (p *Probe) prepare(ctx context.Context) error {
	canary, err := secret.Random(p.Random, KeySize)
	if err != nil {
		return err
	}
	p.known, err = p.Root.Wrap(ctx, canary, []byte(probeContext))
	p.canary = canary
	return err
}
