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
	c.AddCommand(p.volumeList(), p.volumeShow(), p.volumeRecoveryKey(), p.volumeRecoveryCopies())
	return c
}

func (p *Program) volumeList() *cobra.Command {
	var machine string
	c := &cobra.Command{
		Use: "list", Short: "List volumes", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			query := api.ListQuery{Machine: machine}
			list := everythingOf(c.Context(), p, query, (*api.OperatorClient).Volumes)
			return printList(p, list, "ID MACHINE STATUS UUID KEYRING", func(v api.Volume) []string {
				return []string{short(v.ID), short(v.Machine), v.Status, v.UUID, v.Keyring}
			})
		},
	}
	c.Flags().StringVar(&machine, "machine", "", "only volumes of this machine")
	return c
}

func (p *Program) volumeShow() *cobra.Command {
	return &cobra.Command{
		Use: "show VOLUME", Short: "Show a volume and the versions of its secrets", Args: exactly("VOLUME"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := reference("volume", args[0])
			if err != nil {
				return err
			}
			v, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Volume, error) {
				return o.Volume(ctx, ref)
			})
			if v, err = on("volume/"+ref, v, err); err != nil {
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

func writeVolume(w io.Writer, v api.Volume) {
	fields(w, "id", v.ID, "machine", "machine/"+short(v.Machine), "status", v.Status, "LUKS UUID", v.UUID,
		"keyring", v.Keyring, "identity", v.Identity, "created", clock(v.Created))
	for _, s := range v.Secrets {
		fmt.Fprintf(w, "%s secret version %d  %s, under keyring/%s@%d, %s%s\n",
			s.Purpose, s.Version, s.Status, v.Keyring, s.KeyringVersion, clock(s.Created), aboutRecovery(s))
	}
	if v.Report == nil {
		return
	}
	fmt.Fprintf(w, "header as last reported, sequence %d:\n", v.Report.Sequence)
	for _, slot := range v.Report.Slots {
		fmt.Fprintf(w, "  keyslot %d  %s\n", slot.ID, slot.KDF)
	}
	for _, token := range v.Report.Tokens {
		slots := strings.Trim(fmt.Sprint(token.Slots), "[]")
		fmt.Fprintf(w, "  token %d  %s  keyslots %s\n", token.ID, strings.TrimSpace(token.Type+" "+token.Purpose), dash(slots))
	}
}
