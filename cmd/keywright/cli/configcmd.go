package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/cmd/keywright/serve"
)

func (p *Program) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "The service's configuration file"}
	c.AddCommand(
		&cobra.Command{
			Use: "reference", Short: "Print every key with its default and its meaning", Args: exactly(),
			RunE: func(*cobra.Command, []string) error {
				text, err := config.Reference()
				if err != nil {
					return err
				}
				return p.print(map[string]string{"toml": text}, func(w io.Writer) { fmt.Fprint(w, text) })
			},
		},
		&cobra.Command{
			Use: "check FILE", Short: "Check a configuration file and the files that it names", Args: exactly("FILE"),
			Long: `Check a configuration file and the files that it names. Where the service of the
configuration answers, it is asked whether the host of a root of trust is one of its
own machines: that one would wait for the service, and the service for it. A machine
is found by its name: that of the host in the root's URI, or what DNS says that this
is an alias of, or that its addresses are called. The service keeps no addresses of
machines, so that a host that goes by other names everywhere is not found, and a
root at an address or a load balancer only as far as DNS names the machine.`,
			RunE: func(c *cobra.Command, args []string) error { return p.configCheck(c.Context(), args[0]) },
		},
	)
	return c
}

// checked is what a check prints.
type checked struct {
	Valid bool `json:"valid"`
	// Warnings are what a start would not refuse.
	Warnings []string `json:"warnings"`
}

func (p *Program) configCheck(ctx context.Context, path string) error {
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	if err := serve.CheckFiles(c, p.Env("CREDENTIALS_DIRECTORY"), p.Clock()); err != nil {
		return fmt.Errorf("checking configuration %s: %w", path, err)
	}
	result := checked{Valid: true, Warnings: []string{}}
	machines, circle, err := p.ownRoots(ctx, c)
	switch {
	case circle:
		return refusedf("checking configuration %s: every root of trust is at a machine that waits for this service (%s): once all are down none comes up; add a root that is elsewhere",
			path, strings.Join(machines, ", "))
	case err != nil:
		result.Warnings = append(result.Warnings, fmt.Sprintf("whether a root is at one of the service's own machines is not known: %v", err))
	case len(machines) > 0:
		result.Warnings = append(result.Warnings, fmt.Sprintf("a root is at a machine that waits for this service (%s): after a power cut the other roots must answer first", strings.Join(machines, ", ")))
	}
	return p.print(result, func(w io.Writer) {
		for _, warning := range result.Warnings {
			fmt.Fprintf(w, "warning: %s\n", warning)
		}
		fmt.Fprintf(w, "%s is valid\n", path)
	})
}
