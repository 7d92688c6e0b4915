package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) keyringCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "keyring", Short: "Keys that wrap the secrets of volumes, and the service's own",
		Long: `A keyring is a row of keys, its versions; roots of trust wrap them, and they wrap
the secrets. New secrets are wrapped with the current version: the newest that is
enabled. A version is named NAME@VERSION, such as default@3.

  rotate    make the next version, for new secrets
  rewrap    wrap the secrets that are there with the current version
  census    what still depends on a version
  disable   have a version wrap nothing new; it still opens what it wrapped
  destroy   a disabled version on which nothing depends, after 7 to 30 days
  assign    have another keyring wrap a machine's secrets`,
	}
	c.AddCommand(
		p.keyringCreate(), p.keyringList(), p.keyringShow(), p.keyringRotate(), p.keyringRewrap(), p.keyringCensus(), p.keyringAssign(),
		p.keyringDisable(), p.keyringEnable(), p.keyringDismissOutside(), p.keyringDestroy(), p.keyringCancelDestroy(),
	)
	return c
}

func (p *Program) keyringList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List keyrings", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			list := everything(c.Context(), p, api.ListQuery{}, (*api.OperatorClient).Keyrings)
			return printList(p, list, "NAME CURRENT VERSIONS SECRETS ON-OTHERS", func(k api.Keyring) []string {
				var all, others int64
				for _, v := range k.Versions {
					all += v.Dependents
					if v.Version != k.Current {
						others += v.Dependents
					}
				}
				return []string{k.Name, fmt.Sprint(k.Current), fmt.Sprint(len(k.Versions)), fmt.Sprint(all), fmt.Sprint(others)}
			})
		},
	}
}

func (p *Program) keyringShow() *cobra.Command {
	return &cobra.Command{
		Use: "show KEYRING", Short: "Show a keyring with its versions", Args: exactly("KEYRING"),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := p.keyring(c.Context(), args[0])
			if err != nil {
				return err
			}
			return p.print(k, func(w io.Writer) { writeKeyring(w, k) })
		},
	}
}

func (p *Program) keyring(ctx context.Context, argument string) (api.Keyring, error) {
	ref, err := reference("keyring", argument)
	if err == nil && strings.Contains(ref, "@") {
		err = usagef("%q names a version, and this is about the keyring: write its name alone", argument)
	}
	if err != nil {
		return api.Keyring{}, err
	}
	k, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Keyring, error) { return o.Keyring(ctx, ref) })
	return on("keyring/"+ref, k, err)
}

func writeKeyring(w io.Writer, k api.Keyring) {
	fmt.Fprintf(w, "keyring/%s, current version %d\n", k.Name, k.Current)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VERSION\tSTATUS\tSECRETS\tCREATED\tSINCE\tBY\tROOTS")
	for _, v := range k.Versions {
		fmt.Fprintf(table, "%d\t%s\t%d\t%s\t%s\t%s\t%s\n", v.Version, statusOf(v), v.Dependents, clock(v.Created),
			dash(when(v.Changed)), dash(v.ChangedBy), dash(strings.Join(v.Roots, ",")))
	}
	_ = table.Flush() // w keeps the error
	for _, v := range k.Versions {
		if v.Outside != nil {
			fmt.Fprintf(w, "ciphertexts outside of version %d: %s\n", v.Version, describeOutside(v.Outside))
		}
	}
}

func statusOf(v api.KeyringVersion) string {
	if v.DestroyAt != nil {
		return v.Status + " for " + clock(*v.DestroyAt)
	}
	return v.Status
}

func versionRef(v api.KeyringVersion) string {
	return fmt.Sprintf("keyring/%s@%d", v.Keyring, v.Version)
}

// changeKeyring carries out a change that concerns one version, and prints what it
// is by then.
func (p *Program) changeKeyring(ctx context.Context, ref string, dryRun bool,
	change func(context.Context, *api.OperatorClient) (api.KeyringVersion, error), says func(api.KeyringVersion) string,
) error {
	v, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.KeyringVersion, error) {
		return change(ctx, acting(o, dryRun))
	})
	if v, err = on("keyring/"+ref, v, err); err != nil {
		return err
	}
	return p.print(v, func(w io.Writer) {
		if dryRun {
			fmt.Fprint(w, "would be: ")
		}
		fmt.Fprintln(w, says(v))
	})
}

func (p *Program) keyringCreate() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a keyring", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := reference("keyring", args[0])
			if err != nil {
				return err
			}
			return p.changeKeyring(c.Context(), ref, dryRun, func(ctx context.Context, o *api.OperatorClient) (api.KeyringVersion, error) {
				return o.CreateKeyring(ctx, ref)
			}, func(v api.KeyringVersion) string { return versionRef(v) + " is " + v.Status })
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) keyringRotate() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "rotate KEYRING", Short: "Make the next version of a keyring, for new secrets",
		Long: `Make the next version of a keyring: new secrets are wrapped with it from then on.
What is wrapped already stays as it is, until keyring rewrap moves it.

Each configured root of trust wraps the new key and is asked once to unwrap it.
If somebody else rotated the keyring meanwhile, nothing is done.`,
		Args: exactly("KEYRING"),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := p.keyring(c.Context(), args[0])
			if err != nil {
				return err
			}
			return p.changeKeyring(c.Context(), k.Name, dryRun, func(ctx context.Context, o *api.OperatorClient) (api.KeyringVersion, error) {
				return o.RotateKeyring(ctx, k.Name, k.Current)
			}, func(v api.KeyringVersion) string {
				return fmt.Sprintf("%s is the current version now; keywright keyring rewrap %s moves what version %d wraps", versionRef(v), k.Name, k.Current)
			})
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) keyringAssign() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "assign KEYRING MACHINE", Short: "Have a keyring wrap a machine's secrets",
		Long: `Have a keyring wrap the secrets of a machine, and of the volumes that it adds from
then on. The secrets stay what they are; the machine notices nothing.`,
		Args: exactly("KEYRING", "MACHINE"),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := p.keyring(c.Context(), args[0])
			if err != nil {
				return err
			}
			m, err := p.named(c.Context(), args[1])
			if err != nil {
				return err
			}
			a, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.AssignedKeyring, error) {
				return acting(o, dryRun).AssignKeyring(ctx, m.ID, k.Name)
			})
			if a, err = on(refOf(m.Machine), a, err); err != nil {
				return err
			}
			return p.print(a, func(w io.Writer) {
				if dryRun {
					fmt.Fprint(w, "would be: ")
				}
				fmt.Fprintf(w, "keyring/%s wraps the secrets of %s; %d were moved\n", a.Keyring, refOf(m.Machine), a.Secrets)
			})
		},
	}
	addDryRun(c, &dryRun)
	return c
}

// stateVerb is a verb that changes the state of one version.
func (p *Program) stateVerb(c *cobra.Command, change func(*api.OperatorClient, context.Context, string) (api.KeyringVersion, error), says string) *cobra.Command {
	var dryRun bool
	c.Args = exactly("KEYRING@VERSION")
	c.RunE = func(c *cobra.Command, args []string) error {
		ref, err := versionReference(args[0])
		if err != nil {
			return err
		}
		return p.changeKeyring(c.Context(), ref, dryRun, func(ctx context.Context, o *api.OperatorClient) (api.KeyringVersion, error) {
			return change(o, ctx, ref)
		}, func(v api.KeyringVersion) string { return versionRef(v) + " is " + statusOf(v) + says })
	}
	addDryRun(c, &dryRun)
	return c
}

func versionReference(argument string) (string, error) {
	ref, err := reference("keyring", argument)
	if err == nil && !strings.Contains(ref, "@") {
		err = usagef("%q names no version: write NAME@VERSION, such as default@3", argument)
	}
	return ref, err
}

func (p *Program) keyringDisable() *cobra.Command {
	return p.stateVerb(&cobra.Command{
		Use: "disable KEYRING@VERSION", Short: "Have a version wrap nothing new; it still opens what it wrapped",
	}, (*api.OperatorClient).DisableKeyring, ": it wraps nothing new, and still opens what it wrapped")
}

func (p *Program) keyringEnable() *cobra.Command {
	return p.stateVerb(&cobra.Command{
		Use: "enable KEYRING@VERSION", Short: "Let a disabled version wrap again",
		Long: "Let a disabled version wrap again. The newest enabled version is the current one.",
	}, (*api.OperatorClient).EnableKeyring, "")
}

func (p *Program) keyringCancelDestroy() *cobra.Command {
	return p.stateVerb(&cobra.Command{
		Use: "cancel-destroy KEYRING@VERSION", Short: "Cancel the destruction of a version, which is disabled again",
	}, (*api.OperatorClient).CancelDestroy, "")
}

func (p *Program) keyringDestroy() *cobra.Command {
	var (
		dryRun bool
		days   int
	)
	c := &cobra.Command{
		Use: "destroy KEYRING@VERSION", Short: "Destroy a disabled version on which nothing depends",
		Long: `Schedule the destruction of a version: it opens nothing from this moment on, and
after the days its wrappers are erased, so that nobody can unwrap its key again.
Until then keyring cancel-destroy brings it back.

It must be disabled, and nothing may depend on it: where something does, nothing
is done and the first of it is named. Ciphertexts of the key API, which are not
in the store, are taken out of it with keyring dismiss-outside. Backups of the
store from before still hold the wrappers.`,
		Args: exactly("KEYRING@VERSION"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := versionReference(args[0])
			if err != nil {
				return err
			}
			if days == 0 { // the service would take it for its default
				return usagef("--days is a number from 7 to 30")
			}
			err = p.changeKeyring(c.Context(), ref, dryRun, func(ctx context.Context, o *api.OperatorClient) (api.KeyringVersion, error) {
				return o.DestroyKeyring(ctx, ref, api.DestroyKeyring{Days: days})
			}, func(v api.KeyringVersion) string {
				return fmt.Sprintf("%s opens nothing any more and is %s; keywright keyring cancel-destroy %s brings it back until then", versionRef(v), statusOf(v), ref)
			})
			if isInUse(err) {
				p.writeBlockers(c.Context(), ref)
			}
			return err
		},
	}
	c.Flags().IntVar(&days, "days", 30, "days until it is destroyed, 7 to 30")
	addDryRun(c, &dryRun)
	return c
}
