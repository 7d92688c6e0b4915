package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
	"keywright.dev/kms/secret"
)

// maxHeader bounds a header as it is written, in bytes: LUKS2 has at most 4 MiB of
// metadata, twice, and 128 MiB of keyslots.
const maxHeader = 136 << 20

func (p *Program) volumeHeaderCopy() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "header-copy VOLUME", Short: "Disclose the copy of a volume's header from before a rekey",
		Long: `Write the copy of a volume's LUKS header that its machine sent before a rekey
changed it. There is one while the rekey is under way, from when the machine began;
it is removed as the rekey ends. For a header that was damaged meanwhile:

  cryptsetup luksHeaderRestore --header-backup-file FILE DEVICE

Whoever has the file and a secret of that time opens the volume: remove it after.
The audit log has who asked for which volume before the copy leaves the service.`,
		Args: exactly("VOLUME"),
		RunE: func(c *cobra.Command, args []string) error {
			if path == "" {
				return usagef("give --output FILE: a header is not for a terminal")
			}
			ref, err := reference("volume", args[0])
			if err != nil {
				return err
			}
			return p.headerCopyToFile(c.Context(), ref, path)
		},
	}
	c.Flags().StringVarP(&path, "output", "o", "", "write to this new file; required")
	return c
}

// writtenHeader is what header-copy prints.
type writtenHeader struct {
	Volume  string `json:"volume"`
	UUID    string `json:"uuid"`
	Version uint32 `json:"version"`
	Output  string `json:"output"`
}

func (p *Program) headerCopyToFile(ctx context.Context, ref, path string) error {
	var about api.HeaderCopy
	err := writeNew(path, func(w io.Writer) (err error) {
		about, err = p.writeHeaderCopy(ctx, ref, w)
		return err
	})
	if err != nil {
		return err
	}
	return p.print(writtenHeader{about.Volume, about.UUID, about.Version, path}, func(w io.Writer) {
		fmt.Fprintf(w, "%s holds the header of volume/%s, LUKS UUID %s, from %s, before the rekey to version %d\n",
			path, short(about.Volume), about.UUID, clock(about.Created), about.Version)
	})
}

func (p *Program) writeHeaderCopy(ctx context.Context, ref string, to io.Writer) (api.HeaderCopy, error) {
	var header secret.Bytes
	about, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (about api.HeaderCopy, err error) {
		about, header, err = o.HeaderCopy(ctx, ref)
		return about, err
	})
	if about, err = on("volume/"+ref, about, err); err != nil {
		return about, err
	}
	defer header.Wipe()
	from, err := gzip.NewReader(bytes.NewReader(header.Expose()))
	if err != nil {
		return about, fmt.Errorf("the copy of the header: %w", err)
	}
	n, err := io.Copy(to, io.LimitReader(from, maxHeader+1))
	if err == nil && n > maxHeader {
		err = fmt.Errorf("it has more than %d MiB", maxHeader>>20)
	}
	if err != nil {
		return about, fmt.Errorf("writing the copy of the header: %w", err)
	}
	return about, nil
}
