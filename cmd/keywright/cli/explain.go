package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain MACHINE", Short: "Say why a machine's last request ended as it did", Args: exactly("MACHINE"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := reference("machine", args[0])
			if err != nil {
				return err
			}
			x, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Explanation, error) {
				return o.Explain(ctx, ref)
			})
			if x, err = on("machine/"+ref, x, err); err != nil {
				return err
			}
			return p.print(x, func(w io.Writer) {
				fmt.Fprintln(w, x.Summary)
				writeDifferences(w, x.Differences)
				if x.Advice != "" {
					fmt.Fprintln(w, x.Advice)
				}
			})
		},
	}
}

func (p *Program) statusCommand() *cobra.Command {
	var coldStart bool
	c := &cobra.Command{
		Use: "status", Short: "Show the state of the service", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if coldStart {
				return p.coldStart(c.Context())
			}
			s, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Status, error) {
				return o.Status(ctx)
			})
			if err != nil {
				return err
			}
			return p.print(s, func(w io.Writer) { p.writeStatus(w, s) })
		},
	}
	c.Flags().BoolVar(&coldStart, "cold-start", false, "simulate a restart with each root of trust away: which keyrings would open")
	return c
}

func (p *Program) writeStatus(w io.Writer, s api.Status) {
	ready := "ready"
	if len(s.Degraded) > 0 {
		ready = "degraded: " + strings.Join(s.Degraded, "; ")
	}
	if !s.Ready {
		ready = "not ready: " + strings.Join(s.Reasons, "; ")
	}
	var machines []string
	for _, status := range slices.Sorted(maps.Keys(s.Machines)) {
		machines = append(machines, fmt.Sprintf("%d %s", s.Machines[status], status))
	}
	var alarms []string
	for _, kind := range slices.Sorted(maps.Keys(s.Alarms)) {
		if n := s.Alarms[kind]; n > 0 {
			alarms = append(alarms, fmt.Sprintf("%d %s", n, kind))
		}
	}
	fields(w,
		"keywright", s.Version+", "+ready, "started", clock(s.Started),
		"guest URL", s.GuestURL, "service key", s.ServiceKey, "roots", strings.Join(s.Roots, ", "),
		"machines", strings.Join(machines, ", "), "volumes", fmt.Sprint(s.Volumes),
		"open alarms", cmp.Or(strings.Join(alarms, ", "), "none"),
		"audit log", fmt.Sprintf("%d entries, %d in the tree", s.Audit.Entries, s.Audit.Sequenced),
		"audit log key", s.Audit.Key, "last backup", p.backupAge(s),
	)
}

// staleAfter is the age, in hours, from which a backup is called old.
const staleAfter = 48

func (p *Program) backupAge(s api.Status) string {
	if s.LastBackup == nil {
		return "never: run keywright server backup"
	}
	text := clock(*s.LastBackup)
	if s.KeysSince {
		return text + "; keys of volumes changed since, and their machines would not boot from it: run keywright server backup"
	}
	if age := p.Clock().Sub(*s.LastBackup).Hours(); age > staleAfter {
		text += fmt.Sprintf(", %d days ago: run keywright server backup", int(age/24))
	}
	return text
}
