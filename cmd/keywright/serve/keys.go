package serve

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/pki"
	"keywright.dev/kms/secret"
)

// openCA loads the certificate authority. It makes it where there is none, and another
// in its place where it is due: nobody outside depends on it, for guests believe what
// the service identity key signed and look at no certificate, and operators come by a
// socket.
func openCA(ctx context.Context, keys *kms.Keys, clock func() time.Time) (*pki.CA, error) {
	fresh := func() (string, []byte, secret.Bytes, error) {
		ca, err := pki.NewCA(clock())
		if err != nil {
			return "", nil, secret.Bytes{}, err
		}
		private, err := ca.Marshal()
		return "ca", ca.Certificate(), private, err
	}
	row, private, err := keys.ServiceKey(ctx, kms.ServiceKeyCA, fresh)
	if err != nil {
		return nil, err
	}
	ca, err := authorityOf(row, private)
	if err != nil || !ca.Due(clock()) {
		return ca, err
	}
	row, private, err = keys.AddServiceKey(ctx, kms.ServiceKeyCA, fresh, []kms.ServiceKey{row})
	if err != nil {
		return nil, err
	}
	return authorityOf(row, private)
}

func authorityOf(row kms.ServiceKey, private secret.Bytes) (*pki.CA, error) {
	defer private.Wipe()
	return pki.OpenCA(row.Public, private)
}

// identityMaker makes and opens service identity keys.
func identityMaker() kms.IdentityMaker {
	return kms.IdentityMaker{
		Make: pki.MakeIdentity,
		Open: func(private secret.Bytes) (crypto.Signer, error) { return pki.OpenIdentity(private) },
	}
}

// openLog loads the audit log's key, or makes it. The log's origin is the key's
// id, and so stays what it was at the first start.
func openLog(ctx context.Context, keys *kms.Keys, origin, fallback string) (*audit.Signer, error) {
	row, private, err := keys.ServiceKey(ctx, kms.ServiceKeyLog, func() (string, []byte, secret.Bytes, error) {
		name := origin
		if name == "" {
			name = fallback
		}
		return newLogKey(name)
	})
	if err != nil {
		return nil, err
	}
	defer private.Wipe()
	if origin != "" && origin != row.ID {
		return nil, fmt.Errorf("opening the audit log: its origin is %q and the configuration says %q: "+
			"an origin does not change; take audit.origin out of the configuration", row.ID, origin)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(private.Expose())
	if err != nil {
		return nil, errors.New("opening the audit log: its key is not in PKCS#8")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("opening the audit log: its key is not an Ed25519 one")
	}
	return audit.NewSigner(row.ID, key)
}

func newLogKey(origin string) (string, []byte, secret.Bytes, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, secret.Bytes{}, fmt.Errorf("generating an Ed25519 key: %w", err)
	}
	defer clear(private)
	encodedPublic, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", nil, secret.Bytes{}, fmt.Errorf("encoding an Ed25519 key: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", nil, secret.Bytes{}, fmt.Errorf("encoding an Ed25519 key: %w", err)
	}
	return origin, encodedPublic, secret.New(encoded), nil
}

// originOf is the log's origin where the configuration names none.
func originOf(host string) string {
	return strings.NewReplacer(" ", "-", "+", "-", "[", "", "]", "").Replace(host) + "/keywright/audit"
}
