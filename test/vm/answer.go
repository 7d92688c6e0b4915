package vm

import (
	"context"
	"time"

	"keywright.dev/kms/secret"
)

// answerPause is what a person takes to see a prompt. cryptsetup prints it,
// then turns the echo off and drops what was typed until then, and nothing on
// the console tells when.
const answerPause = time.Second

// Answer waits for a passphrase prompt and types the passphrase and Enter.
func (r *Run) Answer(ctx context.Context, prompt string, passphrase secret.Bytes) error {
	if err := r.Prompt(ctx, prompt); err != nil {
		return err
	}
	select {
	case <-time.After(answerPause):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := r.Send(passphrase.Expose()); err != nil {
		return err
	}
	return r.Send([]byte("\n"))
}
