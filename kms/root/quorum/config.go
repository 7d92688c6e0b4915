package quorum

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

const (
	optThreshold = "threshold"
	example      = "age-quorum:///etc/keywright/custodians?threshold=2"
	// maxFile bounds the file of recipients: post-quantum ones have 2,000 letters.
	maxFile = 128 << 10

	nameLabel = "keywright/quorum-name/v1\x00"
	nameSize  = 16
)

// Open reads the file of recipients that uri names, such as
// age-quorum:///etc/keywright/custodians?threshold=2. Nothing else is needed;
// random splits what is wrapped.
func Open(_ context.Context, uri string, random io.Reader) (*Root, error) {
	path, threshold, err := parseURI(uri)
	if err != nil {
		// The URI itself is not repeated: somebody may have put a secret into it.
		return nil, fmt.Errorf("reading the URI of an %s root: %w: want such as %s", Scheme, err, example)
	}
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening the recipients %s: %w", path, err)
	}
	custodians, err := parseRecipients(string(text))
	if err != nil {
		return nil, fmt.Errorf("opening the recipients %s: %w", path, err)
	}
	if err := checkThreshold(threshold, len(custodians)); err != nil {
		return nil, fmt.Errorf("opening the recipients %s: %w", path, err)
	}
	return &Root{name: nameOf(threshold, custodians), threshold: threshold, custodians: custodians, random: random}, nil
}

func parseURI(text string) (path string, threshold int, err error) {
	l, err := local.ParseURI(text, Scheme, optThreshold)
	if err != nil {
		return "", 0, err
	}
	digits := l.Options[optThreshold]
	threshold, err = strconv.Atoi(digits)
	switch {
	case l.Path == "" || l.Path == "/":
		return "", 0, errors.New("it names no file by its absolute path")
	case digits == "":
		return "", 0, errors.New("it does not say how many custodians it takes")
	case err != nil || threshold < 1 || strconv.Itoa(threshold) != digits:
		return "", 0, errors.New("its threshold is no number from 1 on")
	}
	return l.Path, threshold, nil
}

// checkThreshold refuses what is no quorum.
func checkThreshold(threshold, custodians int) error {
	switch {
	case threshold < 1 || threshold > custodians:
		return fmt.Errorf("a threshold of %d among %d custodians: want 1 to %d", threshold, custodians, custodians)
	case threshold == 1 && custodians > 1:
		return fmt.Errorf("a threshold of 1 among %d custodians lets each of them alone open everything: want at least 2, or one custodian", custodians)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	text, err := local.Read(path, maxFile, func(info fs.FileInfo) error {
		owner := -1
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			owner = int(stat.Uid)
		}
		return checkAccess(info.Mode(), owner, os.Geteuid())
	})
	if errors.Is(err, secret.ErrTooLong) {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return text.Expose(), err
}

// checkAccess refuses a file that somebody else can write: they could name
// themselves.
func checkAccess(mode fs.FileMode, owner, self int) error {
	switch {
	case !mode.IsRegular():
		return errors.New("it is not a regular file")
	case mode.Perm()&0o022 != 0:
		return fmt.Errorf("its mode is %#o, and others than the owner can name custodians: run chmod go-w", mode.Perm())
	case owner != 0 && owner != self:
		return fmt.Errorf("it belongs to uid %d, who could name custodians: want root or uid %d, which the service runs as: run chown", owner, self)
	}
	return nil
}

// nameOf names a quorum by its threshold and recipients, in their own order and
// whatever they are labelled.
func nameOf(threshold int, custodians []custodian) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s%d", nameLabel, threshold)
	for _, c := range custodians {
		fmt.Fprintf(h, "\x00%s", c.text)
	}
	return Scheme + ":" + hex.EncodeToString(h.Sum(nil)[:nameSize])
}
