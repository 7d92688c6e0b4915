package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/root/quorum"
	"keywright.dev/kms/secret"
)

func (p *Program) custodyOpenShare() *cobra.Command {
	var identity, to string
	c := &cobra.Command{
		Use: "open-share --identity FILE --to RECIPIENT SHAREFILE", Short: "Hand over your shares, as a custodian", Args: exactly("SHAREFILE"),
		Long: `Decrypt the shares in a file with your age identity, check each, and encrypt them to
the recipient of whoever recovers or holds a drill. What is printed is sent there;
no share is in it that others could read. It asks no service.

Compare the fingerprint on the telephone with somebody whose voice you know before
you send anything: asking for shares under a false name is the attack on a quorum.

It ends with 4 where a share in the file is of no use, and names it.`,
		RunE: func(c *cobra.Command, args []string) error {
			if identity == "" || to == "" {
				return usagef("%s wants --identity FILE and --to RECIPIENT", c.CommandPath())
			}
			return p.openShare(identity, to, args[0])
		},
	}
	c.Flags().StringVar(&identity, "identity", "", "your identity, as age-keygen wrote it")
	c.Flags().StringVar(&to, "to", "", "the recipient that you were told")
	return c
}

func (p *Program) openShare(identity, to, path string) error {
	fingerprint, err := quorum.Fingerprint(to)
	if err != nil {
		return usagef("--to: %w", err)
	}
	identities, err := readIdentities(identity)
	if err != nil {
		return fmt.Errorf("reading the identity %s: %w", identity, err)
	}
	text, err := config.ReadFile(path, maxShareFile)
	if err != nil {
		return fmt.Errorf("reading the shares: %w", err)
	}
	fmt.Fprintf(p.Err, "fingerprint of the recipient: %s\ncompare it with whoever asks before you send what follows\n", fingerprint)
	opened, damaged, err := quorum.OpenShares(path, string(text), identities...)
	defer func() {
		for _, g := range opened {
			g.Data.Wipe()
		}
	}()
	if err != nil {
		return err
	}
	handed, bad, err := quorum.HandOver(to, opened)
	for _, f := range append(damaged, bad...) {
		fmt.Fprintln(p.Err, f)
	}
	if err != nil {
		return err
	}
	if _, err := io.WriteString(p.Out, handed); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if len(damaged)+len(bad) > 0 {
		return errPartly
	}
	return nil
}

// maxIdentity bounds a file of identities, in bytes.
const maxIdentity = 64 << 10

func readIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := secret.Read(f, maxIdentity)
	defer text.Wipe()
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return quorum.ParseIdentities(text)
}
