package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
	"keywright.dev/kms/root/quorum"
)

func (p *Program) rootRecovery() *cobra.Command {
	c := &cobra.Command{
		Use: "recovery", Short: "Recovery by custodians, when every other root is lost",
		Long: `Recovery by custodians: any threshold of them open what no root opens any more.
See docs/roots/recovery.md, also for what the custodians do.`,
	}
	c.AddCommand(p.custodyCreate(), p.custodyTest(), p.custodyOpenShare(), p.custodyUse())
	return c
}

// custodyCreated is what create prints.
type custodyCreated struct {
	Root  string        `json:"root"`
	Files []custodyFile `json:"files"`
	// Old are quorums that hold shares still and are configured no more.
	Old []string `json:"old,omitempty"`
}

type custodyFile struct {
	Custodian string `json:"custodian"`
	File      string `json:"file"`
}

func (p *Program) custodyCreate() *cobra.Command {
	var (
		uri, folder string
		dryRun      bool
	)
	c := &cobra.Command{
		Use: "create --out FOLDER", Short: "Give each custodian their shares of every keyring version", Args: exactly(),
		Long: `Wrap every keyring version for the custodians whom server.roots names, check each
wrapper with the key in use, and write a file of shares for each custodian into a
new folder. The shares are encrypted to the custodian alone.

Run it again after a keyring was made or rotated: the shares of before stay as they
are. The files open nothing without the custodians' identities.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if folder == "" {
				return usagef("%s wants --out FOLDER", c.CommandPath())
			}
			if err := checkNew(folder); err != nil {
				return err
			}
			return p.createCustody(c.Context(), uri, folder, dryRun)
		},
	}
	c.Flags().StringVarP(&folder, "out", "o", "", "write the files into this folder, which is new or empty")
	c.Flags().StringVar(&uri, "root", "", "the quorum, as keywright root list shows it (default: the only one)")
	addDryRun(c, &dryRun)
	return c
}

// checkNew refuses a folder that holds something: nothing is replaced.
func checkNew(folder string) error {
	there, err := os.ReadDir(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("writing into %s: %w", folder, err)
	case len(there) > 0:
		return refusedf("%s is not empty, and nothing is replaced: name a new folder", folder)
	}
	return nil
}

func (p *Program) createCustody(ctx context.Context, uri, folder string, dryRun bool) error {
	roots, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Roots, error) { return o.Roots(ctx) })
	if err != nil {
		return err
	}
	chosen, old, err := chooseQuorum(roots.Roots, uri)
	if err != nil {
		return err
	}
	r, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.RootsRewrapped, error) {
		return acting(o, dryRun).RewrapRoots(ctx, chosen.URI)
	})
	switch {
	case err != nil:
		return err
	case len(r.Failed) > 0:
		writeRewrapped(p.Err, r, dryRun)
		return errPartly
	case dryRun:
		return p.print(r, func(w io.Writer) {
			if len(r.Done) > 0 {
				writeRewrapped(w, r, dryRun)
			}
			fmt.Fprintf(w, "would write the shares of %s into %s: %s\n", chosen.URI, folder, chosen.Offline)
		})
	}
	held, err := p.custody(ctx, chosen.URI)
	if err != nil {
		return err
	}
	files, err := quorum.ShareFiles(held.installation, p.Clock(), held.entries)
	if err != nil {
		return err
	}
	written, err := writeShares(folder, files)
	if err != nil {
		return err
	}
	return p.print(custodyCreated{chosen.URI, written, old}, func(w io.Writer) { writeCreated(w, chosen, len(held.entries), written, old) })
}

func writeCreated(w io.Writer, chosen api.Root, versions int, written []custodyFile, old []string) {
	fmt.Fprintf(w, "%s: %s hold %d keyring versions\n", chosen.URI, chosen.Offline, versions)
	for _, f := range written {
		fmt.Fprintf(w, "%s is for %s\n", f.File, f.Custodian)
	}
	fmt.Fprintln(w, "send each to its custodian, who keeps it apart from their identity; then hold a drill: keywright root recovery test")
	for _, uri := range old {
		fmt.Fprintf(w, "custodians of before still open what %s wraps: keywright root remove %s\n", uri, uri)
	}
}

// chooseQuorum returns the quorum that is named, or the only one, and those that
// are configured no more.
func chooseQuorum(roots []api.Root, uri string) (chosen api.Root, old []string, err error) {
	var found []api.Root
	for _, r := range roots {
		switch {
		case r.Configured && r.Offline != "" && (uri == "" || uri == r.URI):
			found = append(found, r)
		case !r.Configured && strings.HasPrefix(r.URI, quorum.Scheme+":"):
			old = append(old, r.URI)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], old, nil
	case len(found) > 1:
		return chosen, old, usagef("several quorums are configured: name one with --root, as keywright root list shows it")
	case uri != "":
		return chosen, old, refusedf("%s is no quorum that is configured: keywright root list shows what there is", uri)
	}
	return chosen, old, refusedf("no custodians are configured: name them in a file, put age-quorum:///PATH?threshold=N into server.roots, and restart the service")
}

// custody is what custodians hold, as the service says.
type custody struct {
	root, installation string
	entries            []quorum.Entry
	// checks are the check values of the keys in use, by the entries' names.
	checks map[string]string
}

func (p *Program) custody(ctx context.Context, root string) (custody, error) {
	held := custody{checks: make(map[string]string)}
	for after, more := "", true; more; {
		page, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Custody, error) {
			return o.Custody(ctx, root, after)
		})
		if err != nil {
			return held, err
		}
		held.root, held.installation = page.Root, page.Installation
		for _, v := range page.Versions {
			name := fmt.Sprintf("keyring/%s@%d", v.Keyring, v.Version)
			held.entries = append(held.entries, quorum.Entry{Name: name, Context: v.Context, Wrapped: v.Wrapped})
			held.checks[name] = v.Check
		}
		after, more = page.Next, page.Next != ""
	}
	return held, nil
}

// writeShares writes the files, and takes back what it wrote where it cannot write
// all: half of a ceremony is none.
func writeShares(folder string, files []quorum.File) ([]custodyFile, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("writing shares: %w", err)
	}
	written := []custodyFile{}
	for _, f := range files {
		path := filepath.Join(folder, f.Name)
		if err := writeNewText(path, f.Text); err != nil {
			errs := []error{fmt.Errorf("writing the shares of %s: %w", f.Custodian, err)}
			for _, w := range written {
				errs = append(errs, os.Remove(w.File))
			}
			return nil, errors.Join(errs...)
		}
		written = append(written, custodyFile{f.Custodian, path})
	}
	return written, nil
}

// takers returns the custodians who took part in something, each once.
func takers(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}
