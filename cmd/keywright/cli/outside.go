package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) keyringDismissOutside() *cobra.Command {
	var (
		body   api.DismissOutside
		dryRun bool
	)
	c := &cobra.Command{
		Use: "dismiss-outside KEYRING@VERSION", Short: "Say that nothing outside needs a version any more",
		Long: `Say that nothing needs the ciphertexts any more that a version wrapped for the key
API: all are rewrapped by their owners, or given up. The service keeps none of
them and cannot know; until somebody says so, the version cannot be destroyed.

The version must be disabled, so that it wraps nothing new. The reason, who gave
it, and what was recorded of uses go into the audit log. The next use shows that
the version is needed after all, and it counts as before. What nobody rewrapped
is lost with the version.`,
		Args: exactly("KEYRING@VERSION"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := versionReference(args[0])
			if err != nil {
				return err
			}
			if strings.TrimSpace(body.Reason) == "" {
				return usagef("give --reason: how is it known that nothing outside needs %s?", ref)
			}
			if body.Uses, err = p.recordedUses(c.Context(), ref); err != nil {
				return err
			}
			return p.changeKeyring(c.Context(), ref, dryRun, func(ctx context.Context, o *api.OperatorClient) (api.KeyringVersion, error) {
				return o.DismissOutside(ctx, ref, body)
			}, func(v api.KeyringVersion) string {
				return fmt.Sprintf("ciphertexts outside keep %s no longer, until it is used again: %s", versionRef(v), describeOutside(v.Outside))
			})
		},
	}
	c.Flags().StringVar(&body.Reason, "reason", "", "how that is known; required, and goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}

// recordedUses returns how often a version was used, as far as the service knows.
func (p *Program) recordedUses(ctx context.Context, ref string) (int64, error) {
	name, number, _ := strings.Cut(ref, "@")
	k, err := p.keyring(ctx, name)
	if err != nil {
		return 0, err
	}
	for _, v := range k.Versions {
		if fmt.Sprint(v.Version) == number && v.Outside != nil {
			return v.Outside.Uses(), nil
		}
	}
	return 0, nil
}

func describeOutside(o *api.Outside) string {
	text := fmt.Sprintf("%d items wrapped, %d unwrapped, first used %s, last %s", o.Wraps, o.Unwraps, clock(o.First), clock(o.Last))
	if o.Dismissed != nil {
		text += fmt.Sprintf("; dismissed by %s at %s", o.DismissedBy, clock(*o.Dismissed))
	}
	return text
}
