package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms/root/quorum"
)

func (p *Program) custodyUse() *cobra.Command {
	var (
		flags      serverFlags
		to, shares string
	)
	c := &cobra.Command{
		Use: "use --to URI", Short: "Open a store with custodians, and wrap its keys by another root", Args: exactly(),
		Long: `Recover the keys of a stopped service that no root opens any more, and have another
root wrap them: make it before, with keywright root init. The store is that of
--config or --data; of a backup, restore it first with keywright server restore.

It prints a recipient and its fingerprint, and reads the names of the files that
custodians hand over from its input, one a line. The recipient lives in this
process alone, so leave it running until enough of them did. It may be interrupted
and run again, with a new recipient.

--shares writes the custodians' shares into a new folder before, as the store has
them: for custodians who lost their file, or whose file is older than a keyring.

It ends with 4 where a keyring version was not recovered, and names it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if to == "" {
				return usagef("%s wants --to URI: the root that is to wrap the keys", c.CommandPath())
			}
			return p.useCustody(c, flags, to, shares)
		},
	}
	c.Flags().StringVar(&flags.config, "config", "", "configuration file of the service")
	c.Flags().StringVar(&flags.data, "data", "", "data folder (default ./keywright-data)")
	c.Flags().StringVar(&to, "to", "", "URI of the root that is to wrap the keys, as server.roots has it")
	c.Flags().StringVar(&shares, "shares", "", "write the custodians' files of shares into this folder, which is new or empty")
	return c
}

func (p *Program) useCustody(c *cobra.Command, flags serverFlags, to, shares string) (err error) {
	settings, err := flags.settings()
	if err != nil {
		return err
	}
	if shares != "" {
		if err := checkNew(shares); err != nil {
			return err
		}
	}
	recovery, err := serve.OpenRecovery(c.Context(), serve.RecoveryOptions{
		Config: settings, Credentials: p.Env("CREDENTIALS_DIRECTORY"), To: to, Logger: slog.New(slog.NewTextHandler(p.Err, nil)), Clock: p.Clock, Uptime: serve.Uptime,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, recovery.Close()) }()
	if shares != "" {
		files, err := recovery.ShareFiles(c.Context())
		if err != nil {
			return err
		}
		if _, err := writeShares(shares, files); err != nil {
			return err
		}
	}
	results, err := p.gatherFor(c, recovery)
	defer wipeResults(results)
	if err != nil {
		return err
	}
	out, err := recovery.Finish(c.Context(), results)
	if err != nil {
		return err
	}
	return p.recovered(to, out, results)
}

// gatherFor has custodians give what the recovery needs: less than the system
// keyring starts no service.
func (p *Program) gatherFor(c *cobra.Command, recovery *serve.Recovery) ([]quorum.Result, error) {
	session, err := quorum.NewSession()
	if err != nil {
		return nil, err
	}
	defer session.Wipe()
	if err := p.showRecipient(session); err != nil {
		return nil, err
	}
	results := p.gather(c.Context(), c.InOrStdin(), session, recovery.Entries())
	if err := c.Context().Err(); err != nil {
		return results, fmt.Errorf("nothing was changed: %w", err)
	}
	if lacking := recovery.Lacking(results); len(lacking) > 0 {
		writeMissing(p.Err, results)
		return results, refusedf("nothing was changed: %s is needed for everything else, and was not recovered", strings.Join(lacking, ", "))
	}
	for _, r := range results {
		if r.Altered != nil {
			fmt.Fprintf(p.Err, "%s is recovered; something else in its wrapper was changed since it was made: %v\n", r.Name, r.Altered)
		}
	}
	return results, nil
}

// recoveredKeys is what use prints.
type recoveredKeys struct {
	Root       string   `json:"root"`
	Custodians []string `json:"custodians"`
	Wrapped    []string `json:"wrapped"`
	// Failed names keyring versions that were not recovered, or not wrapped.
	Failed []string `json:"failed,omitempty"`
}

func (p *Program) recovered(to string, out serve.Recovered, results []quorum.Result) error {
	made := recoveredKeys{Root: out.Root, Custodians: []string{}, Wrapped: []string{}}
	for _, r := range results {
		if r.Err == nil {
			made.Custodians = takers(made.Custodians, r.By)
		}
	}
	for _, s := range out.Done {
		made.Wrapped = append(made.Wrapped, fmt.Sprintf("keyring/%s@%d", s.Keyring, s.Version))
	}
	writeMissing(p.Err, results)
	for _, f := range out.Failed {
		name := fmt.Sprintf("keyring/%s@%d", f.Keyring, f.Version)
		made.Failed = append(made.Failed, name)
		fmt.Fprintf(p.Err, "%s: %s\n", name, oneLine(f.Err.Error()))
	}
	if err := p.print(made, func(w io.Writer) { writeRecovered(w, made, to) }); err != nil {
		return err
	}
	if len(made.Failed) > 0 {
		return errPartly
	}
	return nil
}

func writeRecovered(w io.Writer, made recoveredKeys, to string) {
	fmt.Fprintf(w, "recovered by %s\n", quoted(made.Custodians))
	for _, name := range made.Wrapped {
		fmt.Fprintf(w, "wrapped %s by %s\n", name, made.Root)
	}
	if len(made.Wrapped) == 0 {
		fmt.Fprintf(w, "%s wraps everything that was recovered already\n", made.Root)
	}
	for _, name := range made.Failed {
		fmt.Fprintf(w, "NOT RECOVERED: %s\n", name)
	}
	fmt.Fprintf(w, `what follows, in this order:
  1. start the service with server.roots = [%q]; add the custodians' URI again where they are to go on
  2. rotate every keyring and rewrap its secrets: the keys were outside of a root
     (keywright keyring rotate, keywright keyring rewrap)
  3. find out who could have had the keys meanwhile: keywright audit list --action root.recover
`, to)
}
