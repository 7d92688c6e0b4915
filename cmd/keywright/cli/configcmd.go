package cli

import (
	"fmt"
	"io"

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
			RunE: func(_ *cobra.Command, args []string) error {
				c, err := config.Load(args[0])
				if err != nil {
					return err
				}
				if err := serve.CheckFiles(c); err != nil {
					return fmt.Errorf("checking configuration %s: %w", args[0], err)
				}
				return p.print(map[string]bool{"valid": true}, func(w io.Writer) { fmt.Fprintf(w, "%s is valid\n", args[0]) })
			},
		},
	)
	return c
}
