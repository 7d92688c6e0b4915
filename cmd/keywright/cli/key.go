package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/keyio"
)

func (p *Program) keyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "key", Short: "Wrap and unwrap secrets of others than disks",
		Long: `Wrap and unwrap secrets of others than disks: whoever has the wrapped form keeps
it, and the service keeps nothing. Secrets are read from standard input or a
file, and written to standard output or a new file that you alone can read.

With --batch both are JSON lines, one for each item and in the same order:
{"reference": …, "context": …, "plaintext": base64, "wrapped": …, "size": …} with
what the verb takes, and lines with what it gives, or code and detail. Where
single items fail, the others are answered and the exit code is 4.`,
	}
	c.AddCommand(
		p.keyVerb(exchange.KeyWrap, "Wrap a plaintext of at most 16 KiB under a keyring's current version"),
		p.keyVerb(exchange.KeyUnwrap, "Unwrap what a keyring wrapped"),
		p.keyVerb(exchange.KeyRewrap, "Move what a keyring wrapped to its current version"),
		p.keyVerb(exchange.KeyDataKey, "Make a key for an application, in the clear and wrapped"),
	)
	return c
}

func (p *Program) keyVerb(operation exchange.KeyOperation, short string) *cobra.Command {
	job := keyio.Job{Operation: operation}
	var files keyio.Files
	c := &cobra.Command{
		Use: string(operation) + " KEYRING", Short: short, Args: exactly("KEYRING"),
		RunE: func(c *cobra.Command, args []string) error {
			keyring, err := reference("keyring", args[0])
			if err != nil {
				return err
			}
			return p.runKey(c.Context(), job, files, keyring)
		},
	}
	flags := c.Flags()
	flags.StringVar(&job.Context, "context", "", "what the wrapped form is bound to beside the keyring; no secret, and needed to unwrap it")
	flags.StringVarP(&files.Output, "output", "o", "", "write to this new file, or fd:N (default: standard output)")
	flags.BoolVar(&job.Batch, "batch", false, "read and write JSON lines")
	flags.StringVarP(&files.Input, "input", "i", "", "read this file, or fd:N (default: standard input)")
	if operation == exchange.KeyDataKey {
		flags.Uint16Var(&job.Size, "size", 32, "bytes of the key: 16, 32 or 64")
		flags.StringVar(&files.Key, "key-output", "", "write the key to this new file, or fd:N")
	}
	return c
}

func (p *Program) runKey(ctx context.Context, job keyio.Job, files keyio.Files, keyring string) error {
	job.In, job.Out = p.In, p.Out
	tally, err := job.RunFiles(ctx, files, func(ctx context.Context, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
		answer, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (*exchange.KeyAnswer, error) {
			return o.Keys(ctx, job.Operation, keyring, r)
		})
		return on("keyring/"+keyring, answer, err)
	})
	var item *keyio.ItemError
	switch {
	case errors.As(err, &item):
		return &about{"keyring/" + keyring, refusedf("%s (KW-%d %s)", item.Detail, api.Code(item.Code).Number(), item.Code)}
	case errors.Is(err, keyio.ErrInput):
		return &usageError{err}
	case err != nil:
		return err
	case tally.Failed > 0:
		return &partly{fmt.Errorf("keyring/%s: %d of %d items failed: see their code and detail", keyring, tally.Failed, tally.Items)}
	default:
		return nil
	}
}
