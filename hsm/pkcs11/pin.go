package pkcs11

import (
	"bytes"
	"fmt"
	"path/filepath"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

const maxPIN = 256

// readPIN reads a PIN file; one line break at its end is not part of the PIN.
func readPIN(path, credentials string) (secret.Bytes, error) {
	pin, err := readPrivate(path, credentials)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading PIN file %s: %w: %w", path, root.ErrRefused, err)
	}
	defer pin.Wipe()
	text := bytes.TrimSuffix(pin.Expose(), []byte("\n"))
	if len(text) == 0 || bytes.ContainsAny(text, "\n\x00") {
		return secret.Bytes{}, fmt.Errorf("reading PIN file %s: %w: it is not one line with a PIN", path, root.ErrRefused)
	}
	return secret.Copy(text), nil
}

func readPrivate(path, credentials string) (secret.Bytes, error) {
	check := local.Private
	if credentials != "" && filepath.Dir(path) == filepath.Clean(credentials) {
		check = local.Credential
	}
	return local.Read(path, maxPIN, check)
}
