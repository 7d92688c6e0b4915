package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"keywright.dev/kms/api"
)

// coldStart simulates a restart with each root away.
func (p *Program) coldStart(ctx context.Context) error {
	answer, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.ColdStarts, error) { return o.ColdStart(ctx) })
	if err != nil {
		return err
	}
	list := answer.Versions
	if err := p.print(answer, func(w io.Writer) { writeColdStart(w, list) }); err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(c api.ColdStart) bool { return len(c.Opens) == 0 }) {
		return errPartly
	}
	return nil
}

func writeColdStart(w io.Writer, list []api.ColdStart) {
	for _, c := range list {
		fmt.Fprintf(w, "keyring/%s@%d: %s\n", c.Keyring, c.Version, openedBy(c))
	}
	for _, root := range rootsOf(list) {
		var closed, lost []string
		for _, c := range list {
			if slices.Equal(c.Opens, []string{root}) {
				closed = append(closed, fmt.Sprintf("keyring/%s@%d", c.Keyring, c.Version))
				if len(c.People) == 0 {
					lost = append(lost, closed[len(closed)-1])
				}
			}
		}
		switch {
		case len(closed) == 0:
			fmt.Fprintf(w, "without %s: everything opens\n", root)
		default:
			fmt.Fprintf(w, "without %s: a restart waits for it; closed stay %s\n", root, strings.Join(closed, ", "))
		}
		if len(lost) > 0 {
			fmt.Fprintf(w, "  WARNING: nothing else opens them, ever: add a second root, or recovery by people (keywright root recovery)\n")
		}
	}
}

func openedBy(c api.ColdStart) string {
	text := "opened by " + strings.Join(c.Opens, ", else ")
	if len(c.Opens) == 0 {
		text = "NO configured root opens it"
	}
	if len(c.People) > 0 {
		text += "; by people: " + strings.Join(c.People, ", ")
	}
	return text
}

// rootsOf returns every root that opens something, in the order of the first.
func rootsOf(list []api.ColdStart) []string {
	var roots []string
	for _, c := range list {
		for _, root := range c.Opens {
			if !slices.Contains(roots, root) {
				roots = append(roots, root)
			}
		}
	}
	return roots
}
