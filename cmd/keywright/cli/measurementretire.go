package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) measurementRetire() *cobra.Command {
	var (
		body   api.RetireMeasurement
		dryRun bool
	)
	c := &cobra.Command{
		Use: "retire MEASUREMENT", Short: "Take back the approval of a measurement that newer ones took the place of", Args: exactly("MEASUREMENT"),
		Long: `Take back the approval of a measurement that newer ones took the place of: where each
active machine of the group had its last good boots with measurements that were approved
later, and announces another for its next one. So it is never the last one with which a
machine booted. A boot is good once the system that it started announced its next boots
(keywright-unlock stage).

A machine that boots it all the same is refused as with one that nobody approved;
keywright measurement approve brings it back. rotate run --due does the same by the
policy, where that sets retire_measurements_after.`,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := reference("measurement", args[0])
			if err != nil {
				return err
			}
			if body.Boots < 1 || body.Boots > maxRetireAfter {
				return usagef("--after is a number from 1 to %d", maxRetireAfter)
			}
			m, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Measurement, error) {
				return acting(o, dryRun).RetireMeasurement(ctx, ref, body)
			})
			if m, err = on("measurement/"+ref, m, err); err != nil {
				return err
			}
			verb := "retired"
			if dryRun {
				verb = "would retire"
			}
			return p.print(m, func(w io.Writer) { fmt.Fprintf(w, "%s measurement/%s of group %s\n", verb, short(m.ID), m.Group) })
		},
	}
	c.Flags().StringVar(&body.Group, "group", "", "the group, where several have it")
	c.Flags().IntVar(&body.Boots, "after", 1, fmt.Sprintf("how many good boots of newer ones each active machine of the group had, at least; at most %d", maxRetireAfter))
	addDryRun(c, &dryRun)
	return c
}

// maxRetireAfter bounds the good boots after which a measurement is retired.
const maxRetireAfter = 10
