package audit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxHead bounds a signed head in bytes; a hundred witnesses' lines fit.
const maxHead = 32 << 10

// SignHead signs the tree as a C2SP tlog-checkpoint: a signed note of the
// log's origin, the size and the root. Only a tree that [Append] returned, or
// the empty one, may be signed.
func (s *Signer) SignHead(t Tree) ([]byte, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", s.verifier.Origin(), t.N, t.Hash)
	head, err := note.Sign(&note.Note{Text: text}, noteSigner{s})
	if err != nil {
		return nil, fmt.Errorf("signing audit head of size %d: %w", t.N, err)
	}
	return head, nil
}

// noteSigner keeps the signing of arbitrary bytes out of Signer's methods.
type noteSigner struct{ s *Signer }

func (n noteSigner) Name() string                     { return n.s.verifier.Origin() }
func (n noteSigner) KeyHash() uint32                  { return n.s.verifier.key.KeyHash() }
func (n noteSigner) Sign(text []byte) ([]byte, error) { return n.s.sign(text) }

// OpenHead verifies a signed head and returns its tree. Lines of other signers,
// such as witnesses, are not looked at. A head that the log's key did not sign
// is [ErrSignature].
func (v *Verifier) OpenHead(head []byte) (Tree, error) {
	if len(head) > maxHead {
		return Tree{}, fmt.Errorf("opening audit head: %d bytes, want at most %d", len(head), maxHead)
	}
	opened, err := note.Open(head, note.VerifierList(v.key))
	if err != nil {
		return Tree{}, headError(err)
	}
	t, err := parseHead(v.Origin(), opened.Text)
	if err != nil {
		return Tree{}, fmt.Errorf("opening audit head: %w", err)
	}
	return t, nil
}

func headError(err error) error {
	var (
		invalid    *note.InvalidSignatureError
		unverified *note.UnverifiedNoteError
	)
	switch {
	case errors.As(err, &invalid):
		return fmt.Errorf("opening audit head: %w", ErrSignature)
	case errors.As(err, &unverified):
		return fmt.Errorf("opening audit head: not signed by this log's key: %w", ErrSignature)
	default:
		return errors.New("opening audit head: not a signed note")
	}
}

// parseHead parses origin, size and root; the log's own heads have no further lines.
func parseHead(origin, text string) (Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Tree{}, errors.New("want three lines: origin, size, root")
	}
	if lines[0] != origin {
		return Tree{}, errors.New("it is of another origin")
	}
	size, err := parseSize(lines[1])
	if err != nil {
		return Tree{}, err
	}
	root, err := parseHash(lines[2])
	return Tree{N: size, Hash: root}, err
}

func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > maxSize || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("want a decimal number from 0 to %d", int64(maxSize))
	}
	return n, nil
}

func parseHash(s string) (Hash, error) {
	h, err := tlog.ParseHash(s)
	if err != nil || h.String() != s {
		return Hash{}, errors.New("want a hash: 32 bytes in base64")
	}
	return h, nil
}
