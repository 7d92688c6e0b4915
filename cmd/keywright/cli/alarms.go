package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

// The kinds of alarms, as the service names them.
const (
	alarmCounters = "counters"
	alarmForeign  = "foreign"
	alarmCopied   = "copied"
)

// writeMachineAlarms writes what is wrong with a machine and its volumes.
func writeMachineAlarms(w io.Writer, m api.MachineDetails) {
	if slices.Contains(m.Alarms, alarmCounters) {
		fmt.Fprintln(w, "ALARM: its TPM's counters went back: a copied vTPM, or a restored snapshot? See keywright explain")
	}
	for _, v := range m.Volumes {
		writeVolumeAlarms(w, v)
	}
}

// writeVolumeAlarms writes what is wrong with a volume.
func writeVolumeAlarms(w io.Writer, v api.Volume) {
	if len(v.SameKey) > 0 {
		label := "note"
		if slices.Contains(v.Alarms, alarmCopied) {
			label = "ALARM"
		}
		fmt.Fprintf(w, "%s: volume/%s is a copied disk: the same volume key opens\n", label, short(v.ID))
		for _, o := range v.SameKey {
			fmt.Fprintf(w, "  volume/%s of %s, %s\n", short(o.ID), refOf(api.Machine{ID: o.Machine, Name: o.Name}), o.Status)
		}
		fmt.Fprintln(w, "  who has the key of one reads the other: give one its own with cryptsetup reencrypt, and enroll it again")
	}
	if len(v.SameKey) == 0 && slices.Contains(v.Alarms, alarmCopied) {
		fmt.Fprintf(w, "ALARM: volume/%s was a copied disk: no other machine has its volume key any more\n", short(v.ID))
		fmt.Fprintf(w, "  if you know what became of the copy: keywright volume accept %s --copied\n", short(v.ID))
	}
	if len(v.Foreign) > 0 {
		fmt.Fprintf(w, "ALARM: volume/%s has what nobody accepted:\n", short(v.ID))
		for _, item := range v.Foreign {
			fmt.Fprintf(w, "  %s %s\n", item.Name, item.Value)
		}
		fmt.Fprintf(w, "  if you added it: keywright volume accept %s; else remove it with cryptsetup luksKillSlot or token remove\n", short(v.ID))
	}
}

func (p *Program) volumeAccept() *cobra.Command {
	var (
		body   api.AcceptVolume
		dryRun bool
	)
	c := &cobra.Command{
		Use: "accept VOLUME", Short: "Accept the keyslots and tokens that a volume reported last",
		Long: `Record the keyslots and tokens that the volume's machine reported last as those
that it should have. From then on any other raises an alarm.

What is accepted is what is reported when the command begins, and it is printed.
If the machine reports something else meanwhile, nothing is accepted.

With --copied it accepts as well that other machines have the same volume key.`,
		Args: exactly("VOLUME"),
		RunE: func(c *cobra.Command, args []string) error {
			before, err := p.volume(c.Context(), args[0])
			if err != nil {
				return err
			}
			if before.Report != nil {
				body.Inventory = before.Report.Digest
			}
			v, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Volume, error) {
				return acting(o, dryRun).AcceptVolume(ctx, before.ID, body)
			})
			if v, err = on("volume/"+short(before.ID), v, err); err != nil {
				return err
			}
			if dryRun {
				return p.print(before, func(w io.Writer) { writeAcceptance(w, "would accept", before, body) })
			}
			return p.print(v, func(w io.Writer) { writeAcceptance(w, "accepted", before, body) })
		},
	}
	c.Flags().BoolVar(&body.Copied, "copied", false, "accept that other machines have the same volume key")
	c.Flags().StringVar(&body.Reason, "reason", "", "why; it goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}

func writeAcceptance(w io.Writer, verb string, v api.Volume, a api.AcceptVolume) {
	var items []string
	for _, item := range v.Foreign {
		items = append(items, item.Name+" "+item.Value)
	}
	if len(items) == 0 {
		items = []string{"nothing new: its keyslots and tokens are as before"}
	}
	fmt.Fprintf(w, "%s of volume/%s: %s\n", verb, short(v.ID), strings.Join(items, "; "))
	switch copied := slices.Contains(v.Alarms, alarmCopied); {
	case copied && a.Copied:
		fmt.Fprintf(w, "%s of volume/%s: other machines have the same volume key\n", verb, short(v.ID))
	case copied:
		fmt.Fprintln(w, "other machines have the same volume key: accept that with --copied")
	}
}
