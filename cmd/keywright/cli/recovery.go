package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"keywright.dev/kms/api"
	"keywright.dev/kms/secret"
)

func (p *Program) volumeRecoveryKey() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "recovery-key VOLUME[@VERSION]", Short: "Disclose a volume's recovery key",
		Long: `Disclose a volume's recovery key: on this terminal, or into a new file that you
alone can read. It opens the volume with cryptsetup on any machine, without the
service, and goes on to do so: treat a key that was shown as one that is known.
A reencryption gives a volume another one; that of before opens images of the disk
from before: keywright volume show names its VERSION.

The audit log has who asked for which volume before the key leaves the service,
and keywright volume show tells when that was last.`,
		Args: exactly("VOLUME[@VERSION]"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, version, err := recoveryReference(args[0])
			if err != nil {
				return err
			}
			if path != "" {
				return p.recoveryKeyToFile(c.Context(), ref, version, path)
			}
			return p.recoveryKeyToTerminal(c.Context(), ref, version)
		},
	}
	c.Flags().StringVarP(&path, "output", "o", "", "write to this new file, without a line feed (default: the terminal)")
	return c
}

// recoveryReference reads a volume with the version of its key, 0 being the current one.
func recoveryReference(argument string) (volume string, version uint32, err error) {
	if strings.Contains(argument, "@") {
		return secretReference(argument)
	}
	volume, err = reference("volume", argument)
	return volume, 0, err
}

func (p *Program) recoveryKey(ctx context.Context, ref string, version uint32) (secret.Bytes, error) {
	key, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (secret.Bytes, error) {
		return o.RecoveryKey(ctx, ref, version)
	})
	return on("volume/"+ref, key, err)
}

// recoveryKeyToTerminal shows the key to a person alone: what a pipe or a file
// takes is kept somewhere, readable for who knows whom.
func (p *Program) recoveryKeyToTerminal(ctx context.Context, ref string, version uint32) error {
	if p.format != formatText || !isTerminal(p.Out) {
		return usagef("a recovery key is shown as text on a terminal, and nowhere else: give --output FILE")
	}
	key, err := p.recoveryKey(ctx, ref, version)
	if err != nil {
		return err
	}
	defer key.Wipe()
	if _, err := p.Out.Write(key.Expose()); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	fmt.Fprintln(p.Out)
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// disclosed is what recovery-key prints beside a file.
type disclosed struct {
	Volume string `json:"volume"`
	Output string `json:"output"`
}

func (p *Program) recoveryKeyToFile(ctx context.Context, ref string, version uint32, path string) error {
	err := writeNew(path, func(w io.Writer) error {
		key, err := p.recoveryKey(ctx, ref, version)
		if err != nil {
			return err
		}
		defer key.Wipe()
		_, err = w.Write(key.Expose())
		return err
	})
	if err != nil {
		return err
	}
	return p.print(disclosed{ref, path}, func(w io.Writer) { fmt.Fprintf(w, "%s holds the recovery key of volume/%s\n", path, ref) })
}

func (p *Program) volumeRecoveryCopies() *cobra.Command {
	var folder string
	c := &cobra.Command{
		Use: "recovery-copies [VOLUME]", Short: "Export recovery keys as they were encrypted with age",
		Long: `Export the recovery keys of all volumes, or of one, as they were encrypted with
age to the recipients that recovery.age_recipients named when each was made.
Keep them where they are at hand when the service is not, and the identities
somewhere else again: age -d and cryptsetup are all that opens a volume then.

With --output each copy becomes a file that is named by the LUKS UUID and the
volume, such as luks-8c3a….volume-93ab….1.age. Files that are there stay.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s wants one VOLUME, or nothing for all", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			var query api.ListQuery
			if len(args) > 0 {
				ref, err := reference("volume", args[0])
				if err != nil {
					return err
				}
				query.Volume = ref
			}
			list := p.recoveryCopies(c.Context(), query)
			if folder == "" {
				return p.printCopies(list)
			}
			return p.writeCopies(list, folder)
		},
	}
	c.Flags().StringVarP(&folder, "output", "o", "", "write a file for each into this folder (default: print them)")
	return c
}

// recoveryCopies names the volume of the query in errors.
func (p *Program) recoveryCopies(ctx context.Context, query api.ListQuery) iter.Seq2[api.RecoveryCopy, error] {
	return func(yield func(api.RecoveryCopy, error) bool) {
		for item, err := range everything(ctx, p, query, (*api.OperatorClient).RecoveryCopies) {
			if err != nil && query.Volume != "" {
				err = &about{"volume/" + query.Volume, err}
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

func (p *Program) printCopies(list iter.Seq2[api.RecoveryCopy, error]) error {
	copies := []api.RecoveryCopy{}
	for item, err := range list {
		if err != nil {
			return err
		}
		copies = append(copies, item)
	}
	return p.print(copies, func(w io.Writer) {
		for _, c := range copies {
			fmt.Fprintf(w, "# volume/%s of machine/%s, LUKS UUID %s, version %d\n%s", c.Volume, c.Machine, c.UUID, c.Version, c.Age)
		}
	})
}

// writtenCopy is what recovery-copies prints beside a file.
type writtenCopy struct {
	Volume  string `json:"volume"`
	Machine string `json:"machine"`
	UUID    string `json:"uuid"`
	Version uint32 `json:"version"`
	File    string `json:"file"`
}

// writeCopies goes on where it was cut: what is there stays.
func (p *Program) writeCopies(list iter.Seq2[api.RecoveryCopy, error], folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("writing age copies: %w", err)
	}
	written := []writtenCopy{}
	for c, err := range list {
		if err != nil {
			return err
		}
		path := filepath.Join(folder, fmt.Sprintf("luks-%s.volume-%s.%d.age", c.UUID, c.Volume, c.Version))
		if err := writeCopy(path, []byte(c.Age)); err != nil {
			return fmt.Errorf("writing age copies: %w", err)
		}
		written = append(written, writtenCopy{c.Volume, c.Machine, c.UUID, c.Version, path})
	}
	return p.print(written, func(w io.Writer) {
		for _, c := range written {
			fmt.Fprintln(w, c.File)
		}
		fmt.Fprintf(w, "%d age copies in %s\n", len(written), folder)
	})
}

// writeCopy gives a file its name once it is whole. A copy is made once, so that
// another one of its name is not this service's.
func writeCopy(path string, text []byte) error {
	there, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(there, text):
		return nil
	case err == nil:
		return fmt.Errorf("%s exists and holds something else: move it away", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".partial-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
