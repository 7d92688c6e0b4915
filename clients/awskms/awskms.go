// Package awskms is a root of trust on AWS KMS: a symmetric KMS key that wraps
// by Encrypt and unwraps by Decrypt.
//
// Invariants:
//   - Every request names the key by its ARN, and an answer that names another
//     key is refused.
//   - The context travels as KMS's encryption context, which binds it and which
//     CloudTrail logs in the clear: see [encryptionContext].
//   - Keys travel over TLS, or within this machine, to no other address than the
//     one that was configured: redirects are not followed.
//   - The root's name is that of its key: a multi-Region key has one name in all
//     regions, and what one wrapped the others unwrap.
//   - An answer's size is bounded before it is read.
//
// It refuses aliases and bare key ids, which somebody else can let mean another
// key, and credentials in the URI. It does not know which version of the key's
// material wrapped something, for KMS does not tell. What the SDK copies of a key
// while it sends or receives it is left to the garbage collector.
package awskms

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// maxCiphertext is KMS's own bound on ciphertexts, in bytes.
const maxCiphertext = 6144

// Root is a KMS key, in the region in which it is asked.
type Root struct {
	arn  string
	name string
	kms  *kms.Client
}

// Open prepares the root that uri names:
//
//	awskms:///ARN[?region=REGION][&endpoint=URL][&profile=NAME]
//
// ARN is a key's. The region is that of the ARN, or for a multi-Region key any
// that has a replica. The endpoint is the region's public one unless another is
// given, as for a VPC endpoint. Credentials come from the profile, or from the
// SDK's default chain. KMS is not asked yet.
func Open(ctx context.Context, uri string) (*Root, error) {
	return open(ctx, uri, settings{})
}

func open(ctx context.Context, uri string, s settings) (*Root, error) {
	a, err := parse(uri)
	if err != nil {
		return nil, fmt.Errorf("opening an AWS KMS root: %w", err)
	}
	client, err := newClient(ctx, a, s)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %s", a.key.name(), printable(err.Error()))
	}
	return &Root{a.key.in(a.region).String(), a.key.name(), client}, nil
}

// URI returns awskms: and the key's ARN, which for a multi-Region key has no region.
func (r *Root) URI() string { return r.name }

// Version is empty: KMS does not show which material of its key it uses.
func (r *Root) Version(context.Context) (string, error) { return "", nil }

// Wrap returns what KMS's Encrypt does.
func (r *Root) Wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	w, err := r.encrypt(ctx, key, encryptionContext(context))
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.name, err)
	}
	return w, nil
}

func (r *Root) encrypt(ctx context.Context, key secret.Bytes, bound map[string]string) (root.Wrapped, error) {
	if key.Len() != root.KeySize {
		return root.Wrapped{}, fmt.Errorf("the key has %d bytes instead of %d", key.Len(), root.KeySize)
	}
	out, err := r.kms.Encrypt(ctx, &kms.EncryptInput{KeyId: &r.arn, Plaintext: key.Expose(), EncryptionContext: bound})
	if err != nil {
		return root.Wrapped{}, classify("Encrypt", err)
	}
	return r.wrapped(out.KeyId, out.CiphertextBlob)
}

// wrapped checks what KMS says that it encrypted.
func (r *Root) wrapped(keyID *string, ciphertext []byte) (root.Wrapped, error) {
	if err := r.checkKey(keyID); err != nil {
		return root.Wrapped{}, err
	}
	if n := len(ciphertext); n == 0 || n > maxCiphertext {
		return root.Wrapped{}, fmt.Errorf("%w: KMS answered with a ciphertext of %d bytes", root.ErrUnavailable, n)
	}
	return root.Wrapped{Ciphertext: ciphertext}, nil
}

// checkKey refuses an answer about another key than the one that was asked for.
func (r *Root) checkKey(keyID *string) error {
	if keyID != nil && *keyID == r.arn {
		return nil
	}
	answered := "none"
	if keyID != nil {
		answered = printable(*keyID)
	}
	return fmt.Errorf("%w: KMS answered for key %s instead of %s: find out what stands between this service and KMS",
		root.ErrRefused, answered, r.arn)
}

// Unwrap opens what Wrap returned, by KMS's Decrypt.
func (r *Root) Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	key, err := r.decrypt(ctx, ciphertext, encryptionContext(context))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.name, err)
	}
	return key, nil
}

func (r *Root) decrypt(ctx context.Context, ciphertext []byte, bound map[string]string) (secret.Bytes, error) {
	if err := checkCiphertext(ciphertext); err != nil {
		return secret.Bytes{}, err
	}
	out, err := r.kms.Decrypt(ctx, &kms.DecryptInput{KeyId: &r.arn, CiphertextBlob: ciphertext, EncryptionContext: bound})
	if err != nil {
		return secret.Bytes{}, classify("Decrypt", err)
	}
	key := secret.New(out.Plaintext)
	if err := r.checkKey(out.KeyId); err != nil {
		key.Wipe()
		return secret.Bytes{}, err
	}
	if n := key.Len(); n != root.KeySize {
		key.Wipe()
		return secret.Bytes{}, fmt.Errorf("%w: KMS decrypted %d bytes instead of a key of %d", root.ErrDoesNotOpen, n, root.KeySize)
	}
	return key, nil
}

// checkCiphertext spares KMS what it would call invalid by its size, with an error
// that does not tell ciphertexts from other arguments.
func checkCiphertext(ciphertext []byte) error {
	if n := len(ciphertext); n == 0 || n > maxCiphertext {
		return fmt.Errorf("%w: the wrapped key has %d bytes, KMS's have 1 to %d", root.ErrDoesNotOpen, n, maxCiphertext)
	}
	return nil
}
