package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

// purposeRecovery is the purpose of recovery keys, as the API names it.
const purposeRecovery = "recovery"

func (p *Program) volumeCommand() *cobra.Command {
	c := &cobra.Command{Use: "volume", Short: "LUKS volumes of machines"}
	c.AddCommand(p.volumeList(), p.volumeShow(), p.volumeAccept(), p.volumeRekey(), p.volumeReencrypt(), p.volumeWithdrawRekey(), p.volumeHeaderCopy(), p.volumeDestroySecret(), p.volumeRecoveryKey(), p.volumeRecoveryCopies())
	return c
}

func (p *Program) volumeList() *cobra.Command {
	var (
		machine         string
		foreign, copied bool
	)
	c := &cobra.Command{
		Use: "list", Short: "List volumes", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			query := api.ListQuery{Machine: machine}
			switch {
			case foreign && copied:
				return usagef("give --foreign or --copied")
			case foreign:
				query.Alarm = alarmForeign
			case copied:
				query.Alarm = alarmCopied
			}
			list := everythingOf(c.Context(), p, query, (*api.OperatorClient).Volumes)
			return printList(p, list, "ID MACHINE STATUS UUID KEYRING ALARMS", func(v api.Volume) []string {
				return []string{short(v.ID), short(v.Machine), v.Status, v.UUID, v.Keyring, dash(strings.Join(v.Alarms, ","))}
			})
		},
	}
	c.Flags().StringVar(&machine, "machine", "", "only volumes of this machine")
	c.Flags().BoolVar(&foreign, "foreign", false, "only volumes with a keyslot or token that nobody accepted")
	c.Flags().BoolVar(&copied, "copied", false, "only volumes whose volume key is on another machine as well")
	return c
}

func (p *Program) volumeShow() *cobra.Command {
	return &cobra.Command{
		Use: "show VOLUME", Short: "Show a volume and the versions of its secrets", Args: exactly("VOLUME"),
		RunE: func(c *cobra.Command, args []string) error {
			v, err := p.volume(c.Context(), args[0])
			if err != nil {
				return err
			}
			return p.print(v, func(w io.Writer) { writeVolume(w, v) })
		},
	}
}

// aboutRecovery says who else may have a recovery key.
func aboutRecovery(s api.SecretVersion) string {
	if s.Purpose != purposeRecovery {
		return ""
	}
	text := ", no age copy"
	if s.AgeCopy {
		text = ", with an age copy"
	}
	if s.Disclosed == nil {
		return text + ", never disclosed"
	}
	return text + ", disclosed last at " + clock(*s.Disclosed)
}

// volume returns the volume that an argument names.
func (p *Program) volume(ctx context.Context, argument string) (api.Volume, error) {
	ref, err := reference("volume", argument)
	if err != nil {
		return api.Volume{}, err
	}
	v, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Volume, error) {
		return o.Volume(ctx, ref)
	})
	return on("volume/"+ref, v, err)
}

func writeVolume(w io.Writer, v api.Volume) {
	fields(w, "id", v.ID, "machine", "machine/"+short(v.Machine), "status", v.Status, "LUKS UUID", v.UUID,
		"keyring", v.Keyring, "identity", v.Identity, "created", clock(v.Created))
	for _, s := range v.Secrets {
		fmt.Fprintf(w, "%s secret version %d  %s, under keyring/%s@%d, %s%s\n",
			s.Purpose, s.Version, s.Status, v.Keyring, s.KeyringVersion, clock(s.Created), aboutRecovery(s))
	}
	writeOrder(w, v.Order)
	writeHeader(w, v)
	writeVolumeAlarms(w, v)
}

func writeHeader(w io.Writer, v api.Volume) {
	if v.Report == nil {
		return
	}
	fmt.Fprintf(w, "header as last reported, sequence %d, over %s of data:\n", v.Report.Sequence, bytesText(v.Report.Size))
	for _, slot := range v.Report.Slots {
		fmt.Fprintf(w, "  keyslot %d  %s  %s\n", slot.ID, word(slot.KDF), dash(word(slot.Mark)))
	}
	for _, token := range v.Report.Tokens {
		slots := strings.Trim(fmt.Sprint(token.Slots), "[]")
		fmt.Fprintf(w, "  token %d  %s  keyslots %s\n", token.ID, strings.TrimSpace(word(token.Type)+" "+token.Purpose), dash(slots))
	}
}
