package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) volumeDestroySecret() *cobra.Command {
	var (
		body   api.DestroySecret
		dryRun bool
	)
	c := &cobra.Command{
		Use: "destroy-secret VOLUME@VERSION", Short: "Destroy a secret that a rekey replaced",
		Long: `Destroy a restore-only version of a volume's secret, at once and for good: images of
the disk from before the rekey that replaced it open with a recovery key alone then.
Where policies say so, keywright rotate run does this once retain_for_restore is over.

keywright volume show names the versions. It is refused where the disk may need it:
while an order is open that needs it, or a restore of the machine is announced.`,
		Args: exactly("VOLUME@VERSION"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, version, err := secretReference(args[0])
			if err != nil {
				return err
			}
			if strings.TrimSpace(body.Reason) == "" {
				return usagef("give --reason: it goes into the audit log")
			}
			body.Version = version
			return p.destroySecret(c.Context(), ref, body, dryRun)
		},
	}
	c.Flags().StringVar(&body.Reason, "reason", "", "why; required, and goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}

// secretReference reads VOLUME@VERSION, as plans write it too.
func secretReference(argument string) (volume string, version uint32, err error) {
	ref, err := reference("volume", argument)
	if err != nil {
		return "", 0, err
	}
	volume, number, _ := strings.Cut(ref, "@")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || n == 0 || volume == "" {
		return "", 0, usagef("%q names no version of a volume's secret: write VOLUME@VERSION", argument)
	}
	return volume, uint32(n), nil
}

func (p *Program) destroySecret(ctx context.Context, ref string, body api.DestroySecret, dryRun bool) error {
	destroyed, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.SecretVersion, error) {
		return acting(o, dryRun).DestroySecret(ctx, ref, body)
	})
	if destroyed, err = on("volume/"+ref, destroyed, err); err != nil {
		return err
	}
	done := "destroyed"
	if dryRun {
		done = "would have destroyed"
	}
	return p.print(destroyed, func(w io.Writer) {
		fmt.Fprintf(w, "%s version %d of the secret of volume/%s, from %s\n", done, destroyed.Version, ref, clock(destroyed.Created))
	})
}
