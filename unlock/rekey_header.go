package unlock

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
)

func headerFile(volume string) string { return "header-" + volume }

// keepHeader keeps the copy of a header in memory, as [Rekeying] wants it: on a
// disk it would outlive the keyslot that is killed.
func (d RunDir) keepHeader(volume string) func(context.Context, *io.SectionReader) error {
	return func(_ context.Context, header *io.SectionReader) error {
		copied, err := io.ReadAll(header)
		if err != nil {
			return err
		}
		return d.write(headerFile(volume), copied)
	}
}

func (d RunDir) dropHeader(volume string) error {
	err := os.Remove(d.path(headerFile(volume)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
