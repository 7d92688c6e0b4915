package luks

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds nesting; LUKS2 itself needs four levels, tokens are free.
const maxDepth = 16

// maxSlots is the number of keyslots, and of tokens, that LUKS2 allows.
const maxSlots = 32

// checkSyntax demands one JSON object within maxDepth and no duplicate names at
// any level (the decoder's default).
func checkSyntax(text []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(text))
	if d.PeekKind() != '{' {
		return errors.New("not a JSON object")
	}
	for {
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		if d.StackDepth() > maxDepth {
			return fmt.Errorf("nested deeper than %d levels", maxDepth)
		}
		if d.StackDepth() == 0 {
			break
		}
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("text behind the object")
	}
	return nil
}

// strictly decodes value into out: every member must be known, names are
// compared case by case.
func strictly(value []byte, out any) error {
	return json.Unmarshal(value, out, json.RejectUnknownMembers(true))
}

// decimal is an integer that LUKS2 writes as a JSON string, in its one shortest
// form.
type decimal uint64

// UnmarshalText accepts canonical decimal digits only.
func (d *decimal) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != string(text) {
		return fmt.Errorf("%q is not a canonical integer", text)
	}
	*d = decimal(n)
	return nil
}

// MarshalText writes decimal digits.
func (d decimal) MarshalText() ([]byte, error) {
	return strconv.AppendUint(nil, uint64(d), 10), nil
}

// id is the number of a keyslot, token, segment or digest, which LUKS2 writes as
// a JSON string or member name.
type id int

// UnmarshalText accepts canonical numbers below maxSlots only.
func (i *id) UnmarshalText(text []byte) error {
	var n decimal
	if err := n.UnmarshalText(text); err != nil {
		return err
	}
	if n >= maxSlots {
		return fmt.Errorf("number %d is out of range", n)
	}
	*i = id(n)
	return nil
}

// MarshalText writes decimal digits.
func (i id) MarshalText() ([]byte, error) { return decimal(i).MarshalText() }

// unique reports whether no number stands twice.
func unique(ids []id) bool {
	seen := make(map[id]bool, len(ids))
	for _, i := range ids {
		seen[i] = true
	}
	return len(seen) == len(ids)
}

// binaryText is a byte string in canonical base64.
type binaryText []byte

// UnmarshalText accepts padded standard base64 without line breaks.
func (b *binaryText) UnmarshalText(text []byte) error {
	decoded, err := base64.StdEncoding.Strict().DecodeString(string(text))
	// The decoder skips line breaks.
	if err != nil || base64.StdEncoding.EncodeToString(decoded) != string(text) {
		return errors.New("not canonical base64")
	}
	*b = decoded
	return nil
}

// MarshalText writes padded standard base64.
func (b binaryText) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

func printable(text []byte) bool {
	return utf8.Valid(text) && !bytes.ContainsFunc(text, unicode.IsControl)
}

// lenient decodes the members that out knows and passes over others.
func lenient(value []byte, out any) error {
	return json.Unmarshal(value, out)
}
