package envelope

import (
	"encoding/binary"
	"fmt"
	"math"
)

// infoLabel separates the derivation of this format's keys from every other
// use of a keyring key.
const infoLabel = "keywright/envelope/kw1"

// BindingSize is the length of a machine binding:
// SHA-256(EK Name ‖ AK Name), the names as in TPM 2.0 part 1, section 16.
const BindingSize = 32

// Context says what a wrapped secret belongs to. Every field takes part in the
// key derivation, the empty ones explicitly, so that a text moved to another
// row of a database opens nothing.
type Context struct {
	Tenant  string // 1 to 63 bytes of a-z, 0-9 and -
	Keyring string // likewise
	Version uint32 // of the keyring, 1 to 2³¹-1
	// Binding names the TPM keys of the machine: [BindingSize] bytes, or none
	// for secrets that belong to no machine.
	Binding []byte
	Machine string // machine id, or empty
	// Volume is a volume id, or empty; of the purpose of applications, what the
	// caller gave as their context.
	Volume  string
	Purpose string // what the secret is for, 1 to 63 bytes of a-z, 0-9 and -
	// SecretVersion counts the secrets of one volume and purpose from 1; 0 for
	// secrets without versions of their own.
	SecretVersion uint32
}

// String names the context for errors; no part of it is secret.
func (c Context) String() string {
	return fmt.Sprintf("keyring/%s@%d (machine %q, volume %q, purpose %q, version %d)",
		c.Keyring, c.Version, c.Machine, c.Volume, c.Purpose, c.SecretVersion)
}

// check finds the field that this format cannot express.
func (c Context) check() error {
	names := []struct{ field, value string }{
		{"tenant", c.Tenant}, {"keyring", c.Keyring}, {"purpose", c.Purpose},
	}
	for _, n := range names {
		if !validName(n.value) {
			return fmt.Errorf("the %s %q is not a name of 1 to 63 characters from a-z, 0-9 and -", n.field, n.value)
		}
	}
	if c.Version == 0 || c.Version > maxVersion {
		return fmt.Errorf("the keyring version %d is outside 1 to %d", c.Version, maxVersion)
	}
	if len(c.Binding) != 0 && len(c.Binding) != BindingSize {
		return fmt.Errorf("the binding has %d bytes instead of none or %d", len(c.Binding), BindingSize)
	}
	if len(c.Machine) > math.MaxUint16 || len(c.Volume) > math.MaxUint16 {
		return fmt.Errorf("the machine has %d bytes and the volume %d, of which at most %d go", len(c.Machine), len(c.Volume), math.MaxUint16)
	}
	return nil
}

// encode is the label and the fields in order, each behind its 16-bit length,
// the numbers in 32 bits, all big-endian.
func (c Context) encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, 512) // for most contexts
	field := func(value string) {
		b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
		b = append(b, value...)
	}
	field(infoLabel)
	field(c.Tenant)
	field(c.Keyring)
	b = binary.BigEndian.AppendUint32(b, c.Version)
	field(string(c.Binding))
	field(c.Machine)
	field(c.Volume)
	field(c.Purpose)
	b = binary.BigEndian.AppendUint32(b, c.SecretVersion)
	return b, nil
}
