package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// writeNew writes a file that does not exist, for its owner alone: it is there before
// write begins, which may disclose what goes into it, and gone where that failed.
func writeNew(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing a new file: %w", err)
	}
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func writeNewText(path, text string) error {
	return writeNew(path, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}
