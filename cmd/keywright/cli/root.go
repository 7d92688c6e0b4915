package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms/api"
)

func (p *Program) rootCommand() *cobra.Command {
	c := &cobra.Command{Use: "root", Short: "What opens the keyrings"}
	c.AddCommand(p.rootInit(), p.rootList(), p.rootRewrap(), p.rootRemove(), p.rootDropLeases(), p.rootRecovery())
	return c
}

func (p *Program) rootInit() *cobra.Command {
	return &cobra.Command{
		Use: "init URI", Short: "Make the key of a root of trust on this host", Args: exactly("URI"),
		Long: `Make the key of a root of trust: a key file, a key on a PKCS#11 token, or a key that
this host's TPM seals. What is there already is never replaced. Keys at Vault and AWS
are made there; see docs/roots. It asks no service.`,
		RunE: func(c *cobra.Command, args []string) error {
			uri, name, err := serve.InitRoot(c.Context(), args[0], p.Env("CREDENTIALS_DIRECTORY"))
			if err != nil {
				return err
			}
			return p.print(struct {
				Root string `json:"root"`
				URI  string `json:"uri"`
			}{name, uri}, func(w io.Writer) {
				fmt.Fprintf(w, "made %s\nname it in the service's configuration: server.roots = [%q]\n", name, uri)
			})
		},
	}
}

func (p *Program) rootList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Ask each root of trust to decrypt, and show how long keys are held", Args: exactly(),
		Long: `Show each root of trust, what it answers to a request to decrypt made just now, and
how many keyring versions it wraps; then each keyring version, how long its key is
held, and by which root it was opened.

It ends with 4 where a root does not answer.`,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Roots, error) { return o.Roots(ctx) })
			if err != nil {
				return err
			}
			if err := p.print(r, func(w io.Writer) { writeRoots(w, r) }); err != nil {
				return err
			}
			if slices.ContainsFunc(r.Roots, func(r api.Root) bool { return r.Error != "" }) {
				return errPartly
			}
			return nil
		},
	}
}

func writeRoots(w io.Writer, r api.Roots) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ROOT\tWRAPS\tSTATE")
	for _, root := range r.Roots {
		fmt.Fprintf(table, "%s\t%d of %d\t%s\n", root.URI, root.Wraps, root.Versions, stateOfRoot(root))
	}
	fmt.Fprintln(table, "\nKEYRING\tHELD FOR\tOPENED BY")
	for _, l := range r.Leases {
		held := "not held"
		if l.Seconds > 0 {
			held = (time.Duration(l.Seconds) * time.Second).String()
		}
		by := l.Root
		if l.Error != "" {
			by += "; last: " + oneLine(l.Error)
		}
		fmt.Fprintf(table, "keyring/%s@%d\t%s\t%s\n", l.Keyring, l.Version, held, strings.TrimPrefix(by, "; "))
	}
	_ = table.Flush() // what it writes to keeps the error
}

func stateOfRoot(r api.Root) string {
	switch {
	case !r.Configured:
		return "not configured: remove it with keywright root remove, or configure it again"
	case r.Error != "":
		return oneLine(r.Error)
	case r.Offline != "" && r.Wraps < r.Versions:
		return "offline: " + r.Offline + "; does not wrap all: run keywright root recovery create"
	case r.Offline != "":
		return "offline: " + r.Offline
	case r.Wraps < r.Versions:
		return "decrypts; does not wrap all: run keywright root rewrap"
	default:
		return "decrypts"
	}
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

func (p *Program) rootRewrap() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "rewrap", Short: "Wrap keyring versions by roots that were added or rotated", Args: exactly(),
		Long: `Have each configured root wrap every keyring version that it does not wrap yet, or
that an older version of its key wraps. Each wrapper is read back before it takes
the place of the one before. It calls roots twice for each wrapper that it makes,
however many secrets there are, touches none of them, and may be interrupted and
run again.

It ends with 4 where something was not done, and names it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.RootsRewrapped, error) {
				return acting(o, dryRun).RewrapRoots(ctx, "")
			})
			if err != nil {
				return err
			}
			if err := p.print(r, func(w io.Writer) { writeRewrapped(w, r, dryRun) }); err != nil {
				return err
			}
			if len(r.Failed) > 0 {
				return errPartly
			}
			return nil
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func writeRewrapped(w io.Writer, r api.RootsRewrapped, dryRun bool) {
	verb := "wrapped"
	if dryRun {
		verb = "would wrap"
	}
	for _, s := range r.Done {
		fmt.Fprintf(w, "%s keyring/%s@%d by %s\n", verb, s.Keyring, s.Version, s.Root)
	}
	for _, s := range r.Failed {
		what := "asking " + s.Root
		if s.Keyring != "" {
			what = fmt.Sprintf("keyring/%s@%d by %s", s.Keyring, s.Version, s.Root)
		}
		fmt.Fprintf(w, "FAILED %s: %s\n", what, oneLine(s.Error))
	}
	if len(r.Done)+len(r.Failed) == 0 {
		fmt.Fprintln(w, "nothing to do: every root wraps every keyring version under its newest key")
	}
	if dryRun {
		fmt.Fprintf(w, "%d root calls\n", 2*len(r.Done))
	}
}

func (p *Program) rootRemove() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "remove URI", Short: "Delete the wrappers of a root that is configured no more", Args: exactly("URI"),
		Long: `Delete the wrappers of a root of trust, by the URI that keywright root list shows.
First take it out of server.roots and restart the service. Every keyring version is
opened by another root before, or nothing is deleted.`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.RootRemoved, error) {
				return acting(o, dryRun).RemoveRoot(ctx, args[0])
			})
			if r, err = on("root/"+args[0], r, err); err != nil {
				return err
			}
			verb := "deleted"
			if dryRun {
				verb = "would delete"
			}
			return p.print(r, func(w io.Writer) { fmt.Fprintf(w, "%s %d wrappers of %s\n", verb, r.Wrappers, args[0]) })
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) rootDropLeases() *cobra.Command {
	var (
		dryRun bool
		reason string
	)
	c := &cobra.Command{
		Use: "drop-leases", Short: "Forget every key that is held, at once", Args: exactly(),
		Long: `End all leases: the service forgets the key of every keyring version, and boots get
their keys only once a root has opened it again. With the roots away no machine
unlocks itself after this.`,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (struct{}, error) {
				return struct{}{}, acting(o, dryRun).DropLeases(ctx, reason)
			})
			if err != nil {
				return err
			}
			if dryRun {
				return p.print(struct{}{}, func(w io.Writer) { fmt.Fprintln(w, "would drop all leases") })
			}
			return p.print(struct{}{}, func(w io.Writer) { fmt.Fprintln(w, "dropped all leases") })
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; it goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}
