package pkcs11

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	scheme  = "pkcs11:"
	maxURI  = 8192 // what String writes is never longer
	maxID   = 128
	maxText = 256 // of a label; a token's own texts are shorter

	example = "pkcs11:token=LABEL;serial=SERIAL;object=LABEL;id=%01?module-path=/usr/lib/MODULE.so&pin-source=file:/etc/keywright/pin"
)

// address is what a URI says, decoded.
type address struct {
	token, manufacturer, model, serial string
	object                             string
	id                                 []byte
	module, pin                        string // absolute paths
}

// parse reads a URI of RFC 7512. Its errors quote no value: one of them may be a
// PIN in the wrong place.
func parse(uri string) (address, error) {
	var a address
	if len(uri) > maxURI {
		return a, fmt.Errorf("the PKCS#11 URI is longer than %d bytes", maxURI)
	}
	rest, ok := strings.CutPrefix(uri, scheme)
	if !ok {
		return a, fmt.Errorf("a PKCS#11 URI begins with %s, as in %s", scheme, example)
	}
	path, query, asked := strings.Cut(rest, "?")
	if err := attributes(path, ";", pathMarks, pathName, a.setPath); err != nil {
		return address{}, err
	}
	if asked {
		if err := attributes(query, "&", queryMarks, queryName, a.setQuery); err != nil {
			return address{}, err
		}
	}
	return a, a.complete()
}

// Characters that stand for themselves beside the unreserved ones (RFC 7512,
// section 2.3).
const (
	pathMarks  = ":[]@!$'()*+,=&"
	queryMarks = ":[]@!$'()*+,=/?|"
)

// attributes reads one half of a URI. A name is looked at before its value, which
// may be a secret that has no place here.
func attributes(text, separator, marks string, may func(name string) error, set func(name, value string) error) error {
	seen := map[string]bool{}
	if text == "" {
		return nil
	}
	for field := range strings.SplitSeq(text, separator) {
		name, raw, ok := strings.Cut(field, "=")
		if !ok || name == "" {
			return fmt.Errorf("the PKCS#11 URI has a part without name and =; it is written as in %s", example)
		}
		if seen[name] {
			return fmt.Errorf("the PKCS#11 URI says %s twice", shown(name))
		}
		seen[name] = true
		if err := may(name); err != nil {
			return err
		}
		value, err := decode(raw, marks)
		if err != nil {
			return fmt.Errorf("the value of %s in the PKCS#11 URI %w", shown(name), err)
		}
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func pathName(name string) error {
	switch {
	case slices.Contains([]string{"token", "manufacturer", "model", "serial", "object", "id", "type"}, name):
		return nil
	case name == "pin-value":
		return errPINValue()
	case name == "pin-source", name == "module-path":
		return fmt.Errorf("%s in the PKCS#11 URI stands behind a question mark, as in %s", name, example)
	case strings.HasPrefix(name, "slot-"), strings.HasPrefix(name, "library-"):
		return fmt.Errorf("%s in the PKCS#11 URI names nothing for good: name the token by serial or token, and the module by module-path", shown(name))
	default:
		return unknown(name, "token, manufacturer, model, serial, object, id and type")
	}
}

func queryName(name string) error {
	switch name {
	case "module-path", "pin-source":
		return nil
	case "pin-value":
		return errPINValue()
	case "module-name":
		return errors.New("module-name in the PKCS#11 URI depends on where one looks: give the file by module-path")
	default:
		return unknown(name, "module-path and pin-source")
	}
}

func errPINValue() error {
	return errors.New("pin-value in the PKCS#11 URI is a secret in a configuration: write the PIN to a file of mode 0600 and name that by pin-source=file:/PATH; take the PIN for known")
}

func (a *address) setPath(name, value string) error {
	switch name {
	case "id":
		a.id = []byte(value)
		return within(name, value, maxID)
	case "type":
		if value != "secret-key" {
			return errors.New("type in the PKCS#11 URI is something else than secret-key: the root is an AES key")
		}
		return nil
	default:
		text := map[string]*string{
			"token": &a.token, "manufacturer": &a.manufacturer, "model": &a.model, "serial": &a.serial, "object": &a.object,
		}
		*text[name] = value
		return printable(name, value)
	}
}

func (a *address) setQuery(name, value string) (err error) {
	if name == "module-path" {
		a.module, err = absolute(name, value)
	} else {
		a.pin, err = pinFile(value)
	}
	return err
}

func unknown(name, known string) error {
	return fmt.Errorf("%s is no attribute that a PKCS#11 URI may have here: there are %s, and none of a vendor", shown(name), known)
}

func (a *address) complete() error {
	for _, need := range []struct {
		there bool
		what  string
	}{
		{a.serial != "" || a.token != "", "the token: give serial, or token for its label"},
		{len(a.id) > 0 || a.object != "", "the key: give id, or object for its label"},
		{a.module != "", "the module: give module-path"},
		{a.pin != "", "where the PIN is: give pin-source=file:/PATH"},
	} {
		if !need.there {
			return fmt.Errorf("the PKCS#11 URI does not say %s, as in %s", need.what, example)
		}
	}
	return nil
}

// shown bounds and quotes a name that somebody else chose.
func shown(name string) string {
	if len(name) > 40 {
		name = name[:40] + "…"
	}
	return fmt.Sprintf("%q", name)
}

// decode resolves percent-encoding. Nothing passes that RFC 7512 wants encoded.
func decode(text, marks string) (string, error) {
	var out []byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '%':
			if i+3 > len(text) {
				return "", errors.New("ends in the middle of a %XX")
			}
			b, err := hex.DecodeString(text[i+1 : i+3])
			if err != nil {
				return "", errors.New("has a % without two hex digits behind it")
			}
			out = append(out, b[0])
			i += 2
		case unreserved(c), strings.IndexByte(marks, c) >= 0:
			out = append(out, c)
		default:
			return "", fmt.Errorf("has a %q: write it as %%%02X", rune(c), c)
		}
	}
	if len(out) == 0 {
		return "", errors.New("is empty")
	}
	return string(out), nil
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

func within(name, value string, limit int) error {
	if len(value) > limit {
		return fmt.Errorf("the value of %s in the PKCS#11 URI is longer than %d bytes", name, limit)
	}
	return nil
}

func printable(name, value string) error {
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("the value of %s in the PKCS#11 URI is not printable UTF-8", name)
	}
	return within(name, value, maxText)
}

func absolute(name, value string) (string, error) {
	if !filepath.IsAbs(value) || filepath.Clean(value) != value {
		return "", fmt.Errorf("%s in the PKCS#11 URI is no absolute path in its shortest form", name)
	}
	return value, printable(name, value)
}

// pinFile accepts a path, alone or as a file URI without host.
func pinFile(value string) (string, error) {
	if strings.HasPrefix(value, "|") {
		return "", errors.New("pin-source in the PKCS#11 URI names a program, and none is run: name a file by pin-source=file:/PATH")
	}
	path, isURI := strings.CutPrefix(value, "file:")
	if isURI {
		path = strings.TrimPrefix(path, "//")
	}
	return absolute("pin-source", path)
}

// String returns the URI of the address in one form, whatever form it was read in.
func (a *address) String() string {
	var path, query []string
	for _, f := range []struct{ name, value string }{
		{"token", a.token},
		{"manufacturer", a.manufacturer},
		{"model", a.model},
		{"serial", a.serial},
		{"object", a.object},
	} {
		if f.value != "" {
			path = append(path, f.name+"="+encode(f.value, ""))
		}
	}
	if len(a.id) > 0 {
		path = append(path, "id="+encodeID(a.id))
	}
	query = append(query, "module-path="+encode(a.module, "/"), "pin-source=file:"+encode(a.pin, "/"))
	return scheme + strings.Join(path, ";") + "?" + strings.Join(query, "&")
}

// name returns what names the key wherever it is reached from, and whether the
// address has all of it.
func (a *address) name() (string, bool) {
	return scheme + "serial=" + encode(a.serial, "") + ";id=" + encodeID(a.id), a.serial != "" && len(a.id) > 0
}

func encode(text, plain string) string {
	var out strings.Builder
	for _, c := range []byte(text) {
		if unreserved(c) || strings.IndexByte(plain, c) >= 0 {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

// encodeID encodes each byte, as RFC 7512 recommends of what is no text.
func encodeID(id []byte) string {
	var out strings.Builder
	for _, c := range id {
		fmt.Fprintf(&out, "%%%02X", c)
	}
	return out.String()
}
