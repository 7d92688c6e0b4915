package api

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ErrDepth means that arrays and objects nest deeper than [MaxDepth].
var ErrDepth = fmt.Errorf("decoding JSON: it nests deeper than %d", MaxDepth)

var errForm = errors.New("decoding JSON: not one object of the expected form")

// Decode reads the one JSON object of a request into v and refuses what two readers
// could understand differently: duplicate, unknown and differently cased
// members, invalid UTF-8, trailing bytes, and nesting beyond [MaxDepth]. The
// error does not repeat what was read; it is [ErrDepth] for the last of these.
func Decode(body []byte, v any) error {
	return decode(body, v, json.RejectUnknownMembers(true))
}

// decodeAnswer is [Decode] for an answer. A newer service may say more than this
// client knows: an initramfs is older than the service that it boots from.
func decodeAnswer(body []byte, v any) error {
	return decode(body, v, json.RejectUnknownMembers(false))
}

func decode(body []byte, v any, unknown json.Options) error {
	if tooDeep(body) {
		return ErrDepth
	}
	// null would leave v as it is, as if all of it had been left out.
	if text := bytes.TrimLeft(body, " \t\r\n"); len(text) == 0 || text[0] != '{' {
		return errForm
	}
	// The decoder's own errors quote what they do not like.
	if json.Unmarshal(body, v, unknown) != nil {
		return errForm
	}
	return nil
}

// tooDeep counts brackets outside strings. It runs before the decoder, which
// recurses, and jumps over strings, which is most of a body.
func tooDeep(body []byte) bool {
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case '}', ']':
			depth--
		case '"':
			i += stringEnd(body[i+1:])
		}
	}
	return false
}

// stringEnd returns how far behind the opening quote a string ends.
func stringEnd(text []byte) int {
	for start := 0; ; {
		quote := bytes.IndexByte(text[start:], '"')
		if quote < 0 {
			return len(text)
		}
		start += quote + 1
		before := text[:start-1]
		if escapes := len(before) - len(bytes.TrimRight(before, `\`)); escapes%2 == 0 {
			return start
		}
	}
}

// Encode returns v as JSON with a line feed at its end. Of text that is not
// UTF-8 it replaces what is wrong.
func Encode(v any) ([]byte, error) {
	out, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil, fmt.Errorf("encoding JSON: %w", err)
	}
	return append(out, '\n'), nil
}

const (
	maxMessage = 400
	maxCode    = 64
)

// printable returns at most limit bytes of text that can't steer a terminal: who
// answered an unverified connection may have written it.
func printable(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(text, ""))
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}
