package rotate

import (
	"errors"
	"strconv"
	"strings"

	"keywright.dev/kms"
)

// ReferenceKind is a kind of thing that can be out.
type ReferenceKind string

// The kinds.
const (
	// KeyringOut is a version of a keyring: every secret that it ever wrapped is out.
	KeyringOut ReferenceKind = "keyring"
	// VolumeOut is a volume: its secret and its volume key are out.
	VolumeOut ReferenceKind = "volume"
	// MachineOut is a machine: whoever was root on it had the keys of its volumes.
	MachineOut ReferenceKind = "machine"
	// HeaderOut is a copy of a volume's header: every slot in it opens the volume key
	// for good, for whoever learns what opens the slot.
	HeaderOut ReferenceKind = "luks-header:volume"
)

// Reference names what is out.
type Reference struct {
	Kind ReferenceKind
	// Name is of the keyring, the id or the name of the machine, or the id of the
	// volume.
	Name    string
	Version uint32 // of the keyring
}

// ParseReference reads keyring/NAME@N, volume/ID, machine/NAME or
// luks-header:volume/ID, with a machine's id or its name.
func ParseReference(text string) (Reference, error) {
	kind, name, _ := strings.Cut(text, "/")
	r := Reference{Kind: ReferenceKind(kind), Name: name}
	ok := false
	switch r.Kind {
	case KeyringOut:
		r.Name, r.Version, ok = parseVersion(name)
		ok = ok && validName(r.Name, 63, "-")
	case VolumeOut, HeaderOut:
		ok = len(name) == 32 && strings.Trim(name, "0123456789abcdef") == ""
	case MachineOut:
		ok = validName(name, maxPattern, "-.")
	}
	if !ok {
		return Reference{}, errors.New("want keyring/NAME@N, volume/ID, machine/NAME or luks-header:volume/ID, such as keyring/prod@3; the id of a volume has 32 digits")
	}
	return r, nil
}

func parseVersion(text string) (name string, version uint32, ok bool) {
	name, number, _ := strings.Cut(text, "@")
	n, err := strconv.ParseUint(number, 10, 31)
	return name, uint32(n), err == nil && n > 0 && strconv.FormatUint(n, 10) == number
}

func validName(name string, most int, beside string) bool {
	return name != "" && len(name) <= most && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789"+beside) == ""
}

// String returns what [ParseReference] reads.
func (r Reference) String() string {
	text := string(r.Kind) + "/" + r.Name
	if r.Version == 0 {
		return text
	}
	return text + "@" + strconv.FormatUint(uint64(r.Version), 10)
}

func (r Reference) notFound() error {
	switch r.Kind {
	case KeyringOut:
		return &kms.NotFoundError{Kind: "keyring version", Ref: strings.TrimPrefix(r.String(), "keyring/")}
	case MachineOut:
		return &kms.NotFoundError{Kind: "machine", Ref: r.Name}
	default:
		return &kms.NotFoundError{Kind: "volume", Ref: r.Name}
	}
}
