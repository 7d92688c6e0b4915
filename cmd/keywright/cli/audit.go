package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
)

func (p *Program) auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "The audit log"}
	c.AddCommand(p.auditList(), p.auditHead(), p.auditExport(), p.auditVerify())
	return c
}

func (p *Program) auditList() *cobra.Command {
	var query api.ListQuery
	c := &cobra.Command{
		Use: "list", Short: "List the newest entries, newest first", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if query.Limit < 1 || query.Limit > api.MaxPage {
				return usagef("--limit is a number from 1 to %d", api.MaxPage)
			}
			list := everythingOf(c.Context(), p, query, (*api.OperatorClient).AuditEntries)
			return printList(p, list, "TIME ACTOR ACTION OBJECT OUTCOME CODE COUNT", func(e api.AuditEntry) []string {
				return []string{clock(e.Time), shorten(e.Actor), e.Action, dash(shorten(e.Object)), e.Outcome, dash(e.Code), fmt.Sprint(e.Count)}
			})
		},
	}
	c.Flags().StringVar(&query.Machine, "machine", "", "only entries about this machine")
	c.Flags().StringVar(&query.Action, "action", "", "only entries of this action, such as boot.release")
	c.Flags().IntVar(&query.Limit, "limit", api.DefaultPage, "the most entries to list, at most 1000")
	return c
}

// shorten cuts the id in a reference to what people need.
func shorten(ref string) string {
	kind, id, ok := strings.Cut(ref, "/")
	if !ok || len(id) < 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ref
	}
	return kind + "/" + short(id)
}

func (p *Program) auditHead() *cobra.Command {
	return &cobra.Command{
		Use: "head", Short: "Print the newest signed head, to be kept elsewhere",
		Long: `Print the newest signed head of the log. Keep it where whoever runs the service
cannot reach: audit verify --head then finds everything that was edited or cut
off before it.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			head, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.AuditHead, error) {
				return o.AuditHead(ctx)
			})
			if err != nil {
				return err
			}
			if head.Head == "" {
				return errors.New("the audit log has no signed head yet: nothing stands in its tree")
			}
			return p.print(head, func(w io.Writer) { fmt.Fprint(w, head.Head) })
		},
	}
}

func (p *Program) auditExport() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "export", Short: "Export the log up to its newest signed head", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (struct{}, error) {
				return struct{}{}, p.exportTo(ctx, o, path)
			})
			return err
		},
	}
	c.Flags().StringVarP(&path, "output", "o", "", "write to this new file (default: standard output)")
	return c
}

func (p *Program) exportTo(ctx context.Context, o *api.OperatorClient, path string) error {
	if path == "" {
		return o.ExportAudit(ctx, p.Out)
	}
	return writeNew(path, func(w io.Writer) error { return o.ExportAudit(ctx, w) })
}

func (p *Program) auditVerify() *cobra.Command {
	var (
		key   string
		heads []string
	)
	c := &cobra.Command{
		Use: "verify FILE", Short: "Verify an export offline",
		Long: `Verify every entry's signature, its place in the tree, and every signed head of
an export; no service is asked. The log's key, which keywright status shows as
"audit log key", must come from where you trust it, not from the export.

With --head it compares with heads that were kept elsewhere (keywright audit
head). Without, an export that was cut off at an older head can't be told from
one that was made then. It ends with 3 if anything is wrong.`,
		Args: exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return usagef(`audit verify wants --key KEY: the "audit log key" that keywright status showed`)
			}
			return p.verify(args[0], key, heads)
		},
	}
	c.Flags().StringVar(&key, "key", "", "the log's verifier key, origin+id+base64")
	c.Flags().StringArrayVar(&heads, "head", nil, "a file with a signed head that was kept elsewhere; may be given again")
	return c
}

func (p *Program) verify(path, key string, heads []string) error {
	verifier, err := audit.ParseVerifier(strings.TrimSpace(key))
	if err != nil {
		return usagef("--key: want the audit log key, origin+id+base64")
	}
	kept, err := readHeads(verifier, heads)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the export: %w", err)
	}
	defer f.Close()
	report, verifyErr := audit.VerifyExport(bufio.NewReader(f), verifier, kept...)
	if verifyErr != nil && !errors.Is(verifyErr, audit.ErrTampered) {
		return unverified(verifyErr)
	}
	return errors.Join(p.print(reportOf(report), func(w io.Writer) { writeReport(w, report, len(kept)) }), verifyErr)
}

// unverified is a refusal, unless the file itself cannot be read.
func unverified(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return err
	}
	return &refusal{err}
}

// verified is a report in the form that --format json prints.
type verified struct {
	Entries  int64     `json:"entries"`
	Heads    int64     `json:"heads"`
	Kept     int       `json:"kept"` // kept heads that agree
	Size     int64     `json:"size"` // of the last signed head
	Root     string    `json:"root"`
	First    time.Time `json:"first,omitzero"`
	Last     time.Time `json:"last,omitzero"`
	Findings []finding `json:"findings"`
	More     int64     `json:"more"`
}

type finding struct {
	Kind  string `json:"kind"`
	First int64  `json:"first"`
	Last  int64  `json:"last"`
	Line  int64  `json:"line"`
	Text  string `json:"text"`
}

func reportOf(r audit.Report) verified {
	v := verified{
		Entries: r.Entries, Heads: r.Heads, Kept: r.Kept, Size: r.Head.N, Root: r.Head.Hash.String(),
		First: r.First, Last: r.Last, Findings: []finding{}, More: r.More,
	}
	for _, f := range r.Findings {
		v.Findings = append(v.Findings, finding{string(f.Kind), f.First, f.Last, f.Line, f.Text})
	}
	return v
}

func readHeads(v *audit.Verifier, paths []string) ([]audit.Tree, error) {
	var kept []audit.Tree
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading a kept head: %w", err)
		}
		tree, err := v.OpenHead(text)
		if err != nil {
			return nil, unverified(fmt.Errorf("reading the kept head %s: %w", path, err))
		}
		kept = append(kept, tree)
	}
	return kept, nil
}

func writeReport(w io.Writer, r audit.Report, kept int) {
	for _, f := range r.Findings {
		fmt.Fprintln(w, f)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "and %d more findings\n", r.More)
	}
	if len(r.Findings) > 0 {
		return
	}
	fmt.Fprintf(w, "%d entries verified", r.Entries)
	if r.Entries > 0 {
		fmt.Fprintf(w, ", from %s to %s", clock(r.First), clock(r.Last))
	}
	fmt.Fprintf(w, "\nsigned head of %d entries, root %s\n", r.Head.N, r.Head.Hash)
	if kept > 0 {
		fmt.Fprintf(w, "%d of %d kept heads agree\n", r.Kept, kept)
	}
}
