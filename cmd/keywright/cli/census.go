package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) keyringCensus() *cobra.Command {
	return &cobra.Command{
		Use: "census KEYRING|KEYRING@VERSION", Short: "Show what depends on the versions of a keyring",
		Long: `Count what depends on each version of a keyring: secrets by purpose and status,
and the service's own keys; as outside, that the key API used it. Of one version,
KEYRING@VERSION, everything is named as well. A version on which nothing depends
can be destroyed; what is outside, keyring dismiss-outside takes out of it.`,
		Args: exactly("KEYRING"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := reference("keyring", args[0])
			if err != nil {
				return err
			}
			census, err := p.census(c.Context(), ref)
			if err != nil {
				return err
			}
			return p.print(census, func(w io.Writer) { writeCensus(w, census) })
		},
	}
}

// census reads all pages.
func (p *Program) census(ctx context.Context, ref string) (api.Census, error) {
	var whole api.Census
	for query := (api.ListQuery{Limit: api.MaxPage}); ; {
		page, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Census, error) { return o.Census(ctx, ref, query) })
		if page, err = on("keyring/"+ref, page, err); err != nil {
			return page, err
		}
		page.Blockers = append(whole.Blockers, page.Blockers...)
		whole, query.After = page, page.Next
		if page.Next == "" {
			return whole, nil
		}
	}
}

func writeCensus(w io.Writer, c api.Census) {
	writeCounts(w, c.Counts)
	for _, b := range c.Blockers {
		fmt.Fprintln(w, describe(b))
	}
}

func writeCounts(w io.Writer, counts []api.DependentsCount) {
	if len(counts) == 0 {
		fmt.Fprintln(w, "nothing depends on it")
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VERSION\tKIND\tPURPOSE\tSTATUS\tCOUNT")
	for _, d := range counts {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%d\n", d.Version, d.Kind, d.Purpose, dash(d.Status), d.Count)
	}
	_ = table.Flush() // w keeps the error
}

// describe is one line about what a version opens.
func describe(d api.Dependent) string {
	switch {
	case d.Outside != nil:
		return d.Object + ": " + describeOutside(d.Outside)
	case d.Machine == "":
		return d.Object
	}
	return fmt.Sprintf("%s of machine/%s, %s version %d, %s", d.Object, short(d.Machine), d.Purpose, d.Version, d.Status)
}

func isInUse(err error) bool {
	var known *api.Error
	return errors.As(err, &known) && known.Code == api.CodeInUse
}

// maxBlockers bounds what is named beside a refusal; the census names the rest.
const maxBlockers = 10

// writeBlockers names what keeps a version from being destroyed, beside the error
// that says so; where that fails, the error alone must do.
func (p *Program) writeBlockers(ctx context.Context, ref string) {
	census, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Census, error) {
		return o.Census(ctx, ref, api.ListQuery{Limit: maxBlockers})
	})
	if err != nil {
		return
	}
	var text strings.Builder
	for _, b := range census.Blockers {
		fmt.Fprintf(&text, "  %s\n", describe(b))
	}
	if census.Next != "" {
		text.WriteString("  …\n")
	}
	fmt.Fprint(p.Err, text.String())
}
