package envelope

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// formatID opens every wrapped secret and says how to read the rest.
const formatID = "kw1"

// maxText is longer than any text this package writes.
const maxText = 32 << 10

// encoding is base64url (RFC 4648 section 5) without padding; strict, so that
// one secret has one text.
func encoding() *base64.Encoding { return base64.RawURLEncoding.Strict() }

// Wrapped is a parsed text. Its exported fields say which key opens it; they
// are claims of the text until it has been opened.
type Wrapped struct {
	Keyring string
	Version uint32

	salt       [saltSize]byte
	commitment [commitmentSize]byte
	sealed     []byte
}

// Parse reads the kw1 format. It finds out what a text says it is, not whether
// that is true. The error is [ErrMalformed] with the part that is wrong; it
// never repeats the text.
func Parse(text string) (Wrapped, error) {
	if len(text) > maxText {
		return Wrapped{}, malformed("longer than %d bytes", maxText)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 4 || parts[0] != formatID {
		return Wrapped{}, malformed("not of the form %s.<keyring>.<version>.<data>", formatID)
	}
	if !validName(parts[1]) {
		return Wrapped{}, malformed("the keyring is not a name")
	}
	version, err := parseVersion(parts[2])
	if err != nil {
		return Wrapped{}, err
	}
	w := Wrapped{Keyring: parts[1], Version: version}
	return w, w.parseData(parts[3])
}

func (w *Wrapped) parseData(text string) error {
	// The decoder passes over line breaks.
	if strings.ContainsAny(text, "\r\n") {
		return malformed("the data holds a line break")
	}
	data, err := encoding().DecodeString(text)
	if err != nil {
		return malformed("the data is not base64url without padding")
	}
	const head = saltSize + commitmentSize
	if len(data) <= head+sealOverhead || len(data) > head+sealOverhead+MaxPlaintext {
		return malformed("the data has %d bytes, outside %d to %d", len(data), head+sealOverhead+1, head+sealOverhead+MaxPlaintext)
	}
	w.salt = [saltSize]byte(data)
	w.commitment = [commitmentSize]byte(data[saltSize:])
	w.sealed = data[head:]
	return nil
}

// String is the text that [Parse] reads.
func (w Wrapped) String() string {
	data := append(append(w.salt[:], w.commitment[:]...), w.sealed...)
	return strings.Join([]string{formatID, w.Keyring, formatVersion(w.Version), encoding().EncodeToString(data)}, ".")
}

func parseVersion(text string) (uint32, error) {
	v, err := strconv.ParseUint(text, 10, 31)
	if err != nil || v == 0 || formatVersion(uint32(v)) != text {
		return 0, malformed("the version is not a number from 1 to %d without leading zeros", maxVersion)
	}
	return uint32(v), nil
}

func validName(name string) bool {
	if len(name) == 0 || len(name) > 63 {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
