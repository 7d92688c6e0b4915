package attest

import (
	"encoding/binary"
	"unicode/utf16"
)

// Vendor GUIDs of UEFI variables, as the bytes of an EFI_GUID.
const (
	guidGlobal        = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c"
	guidImageSecurity = "\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f"
)

// maxVariableName bounds a variable's name, in UTF-16 units.
const maxVariableName = 64

// variable is a UEFI_VARIABLE_DATA (TCG PC Client Platform Firmware Profile,
// section 10.2.6).
type variable struct {
	vendor string
	name   string
	data   []byte
}

// parseVariable reads an event's data; false when it is not exactly one
// variable with a name of printable ASCII characters other than space.
func parseVariable(data []byte) (variable, bool) {
	const fixed = 16 + 8 + 8
	if len(data) < fixed {
		return variable{}, false
	}
	le := binary.LittleEndian
	nameLength, dataLength := le.Uint64(data[16:]), le.Uint64(data[24:])
	rest := data[fixed:]
	if nameLength == 0 || nameLength > maxVariableName || 2*nameLength > uint64(len(rest)) {
		return variable{}, false
	}
	v := variable{vendor: string(data[:16]), data: rest[2*nameLength:]}
	var ok bool
	v.name, ok = asciiOf(rest[:2*nameLength])
	return v, ok && dataLength == uint64(len(v.data))
}

// asciiOf decodes UTF-16LE; false unless all characters are printable ASCII
// other than space.
func asciiOf(data []byte) (string, bool) {
	text, ok := textOf(data)
	for i := range len(text) {
		ok = ok && text[i] > ' ' && text[i] <= '~'
	}
	return text, ok
}

// textOf decodes UTF-16LE; false where decoding loses something.
func textOf(data []byte) (string, bool) {
	if len(data)%2 != 0 {
		return "", false
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = uint16(data[2*i]) | uint16(data[2*i+1])<<8
		if utf16.IsSurrogate(rune(units[i])) {
			return "", false
		}
	}
	return string(utf16.Decode(units)), true
}
