package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

// ErrPassphrase means that a key file is whole, and another passphrase opens it.
var ErrPassphrase = errors.New("wrong passphrase")

var (
	errPassphraseWanted = errors.New("it is under a passphrase: say where that is, " +
		"with passphrase-file=, passphrase-credential= or passphrase-fd= in the root's URI")
	errNoPassphrase = errors.New("it is under no passphrase, and the root's URI names one: " +
		"anybody who reads the file has the key; take the passphrase out of the URI if that is meant")
)

// maxPassphrase bounds a passphrase, in bytes.
const maxPassphrase = 1024

// cost is what a guess costs under Argon2id (RFC 9106).
type cost struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint32
}

// Bounds of what a file may ask of this host: the first recommendation of RFC
// 9106 has 2 GiB, one pass and 4 lanes.
const (
	maxMemory = 2 << 20 // KiB
	maxPasses = 16
	maxLanes  = 16
)

// defaultCost is the second recommendation of RFC 9106, section 4. The first
// takes 2 GiB, more than the service may have where it is confined as shipped.
func defaultCost() cost { return cost{memory: 64 << 10, passes: 3, lanes: 4} }

func (c cost) check() error {
	if c.passes < 1 || c.passes > maxPasses || c.lanes < 1 || c.lanes > maxLanes || c.memory < 8*c.lanes || c.memory > maxMemory {
		return fmt.Errorf("its passphrase costs m=%d t=%d p=%d, allowed are m=8p to %d, t=1 to %d, p=1 to %d",
			c.memory, c.passes, c.lanes, maxMemory, maxPasses, maxLanes)
	}
	return nil
}

// protect encrypts a key under a passphrase.
func protect(key, passphrase secret.Bytes, c cost, random io.Reader) (protected, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(random, salt); err != nil {
		return protected{}, fmt.Errorf("making a salt: %w", err)
	}
	p := protected{cost: c, salt: salt}
	derived := p.derive(passphrase)
	defer derived.Wipe()
	var err error
	p.sealed, err = local.Encrypt(derived, key, []byte(p.derivation()))
	return p, err
}

func (p protected) open(passphrase secret.Bytes) (secret.Bytes, error) {
	derived := p.derive(passphrase)
	defer derived.Wipe()
	key, err := local.Decrypt(derived, p.sealed, []byte(p.derivation()))
	if errors.Is(err, root.ErrDoesNotOpen) {
		// The file's digest was right: it is as it was written.
		return secret.Bytes{}, fmt.Errorf("%w: the file is whole, and this passphrase does not open it", ErrPassphrase)
	}
	return key, err
}

func (p protected) derive(passphrase secret.Bytes) secret.Bytes {
	return secret.New(argon2.IDKey(passphrase.Expose(), p.salt, p.cost.passes, p.cost.memory, uint8(p.cost.lanes), root.KeySize))
}

// trimmed takes one line feed off the end, which an editor leaves, and refuses
// what is no passphrase. It takes ownership of text.
func trimmed(text secret.Bytes) (secret.Bytes, error) {
	defer text.Wipe()
	line := bytes.TrimSuffix(text.Expose(), []byte{'\n'})
	switch {
	case len(line) == 0:
		return secret.Bytes{}, errors.New("it is empty")
	case len(line) > maxPassphrase:
		return secret.Bytes{}, secret.ErrTooLong
	}
	return secret.Copy(line), nil
}
