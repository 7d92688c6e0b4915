package quorum

import (
	"context"
	"errors"
	"fmt"
	"io"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Root is a quorum: custodians and how many of them open.
type Root struct {
	name       string
	threshold  int
	custodians []custodian // in the order of their recipients
	random     io.Reader
}

// URI returns age-quorum: and 32 hex digits that name the threshold and the
// recipients, in whatever order and by whatever names the file has them.
func (r *Root) URI() string { return r.name }

// Version is empty: other recipients are another root.
func (r *Root) Version(context.Context) (string, error) { return "", nil }

// Threshold says how many custodians open.
func (r *Root) Threshold() int { return r.threshold }

// Custodians returns the names of those who hold a share, in the order of the
// shares.
func (r *Root) Custodians() []string {
	var names []string
	for _, c := range r.custodians {
		names = append(names, c.label)
	}
	return names
}

// Wrap splits key and encrypts each share to its custodian. The result is the
// wrapper that [ParseRow] reads. A context has at most [MaxContext] bytes.
func (r *Root) Wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	if err := ctx.Err(); err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.name, errors.Join(root.ErrUnavailable, err))
	}
	dealt, err := r.deal(key, context)
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.name, err)
	}
	defer dealt.wipe()
	row := Row{Set: dealt.set}
	for i, share := range dealt.shares {
		sealed, err := encrypt(share, r.custodians[i].age)
		if err != nil {
			return root.Wrapped{}, fmt.Errorf("wrapping under %s: encrypting the share of %s: %w", r.name, r.custodians[i].label, err)
		}
		row.sealed = append(row.sealed, sealed)
	}
	wrapped, err := row.encode(key)
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.name, err)
	}
	return root.Wrapped{Ciphertext: wrapped}, nil
}

// Unwrap always fails with [root.ErrNeedsPeople], or since ctx has ended.
func (r *Root) Unwrap(ctx context.Context, _, _ []byte) (secret.Bytes, error) {
	if err := ctx.Err(); err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.name, errors.Join(root.ErrUnavailable, err))
	}
	return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w, %d of %d custodians: see keywright root recovery use", r.name, root.ErrNeedsPeople, r.threshold, len(r.custodians))
}

// Offline says how many of whom open what it wraps.
func (r *Root) Offline() string {
	return fmt.Sprintf("%d of %d custodians", r.threshold, len(r.custodians))
}

// CheckValue is [CheckValue].
func (r *Root) CheckValue(key secret.Bytes, context []byte) (string, error) {
	return CheckValue(key, context)
}

// Verify tells whether wrapped is as this root made it for key and context,
// which takes the key and no custodian. Its errors are [ErrMalformed] and
// [ErrAltered].
func (r *Root) Verify(wrapped []byte, key secret.Bytes, context []byte) error {
	row, err := ParseRow(wrapped)
	if err == nil && row.Set.Quorum != r.name {
		err = fmt.Errorf("it is for the quorum %s: %w", row.Set.Quorum, ErrAltered)
	}
	if err == nil {
		err = row.Verify(key, context)
	}
	if err != nil {
		return fmt.Errorf("verifying a wrapper of %s: %w", r.name, err)
	}
	return nil
}
