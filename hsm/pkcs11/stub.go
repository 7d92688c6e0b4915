//go:build !cgo

package pkcs11

import (
	"context"
	"fmt"

	"keywright.dev/kms/root"
)

// Modules has nothing to load.
type Modules struct{}

// Root exists in name alone.
type Root struct{ root.Root }

// Close has nothing to close.
func (*Root) Close(context.Context) {}

// Open refuses: see the package's comment.
func Open(_ context.Context, uri string, _ Settings) (*Root, error) {
	return nil, refuse("opening a PKCS#11 root", uri)
}

// Init refuses likewise.
func Init(_ context.Context, uri string, _ Settings) (string, error) {
	return "", refuse("making a key on a PKCS#11 token", uri)
}

func refuse(doing, uri string) error {
	if _, err := parse(uri); err != nil {
		return fmt.Errorf("%s: %w: %w", doing, root.ErrRefused, err)
	}
	return fmt.Errorf("%s: %w: this binary is static and loads no module; PKCS#11 is in the binary keywright-pkcs11, which is otherwise the same", doing, root.ErrRefused)
}
