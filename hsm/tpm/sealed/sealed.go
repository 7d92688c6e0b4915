package sealed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

const (
	scheme    = "tpm"
	optDevice = "device"
	optPCRs   = "pcrs"
	example   = "want tpm:///PATH, tpm:///PATH?device=/dev/tpmrm0 or tpm:///PATH?pcrs=7"
)

// Opener opens a TPM, as [tpm.Open] does.
type Opener func(path string) (*tpm.Device, error)

// Root is a key that one TPM can read.
type Root struct {
	uri    string
	sealed tpm.Sealed
	device func() (*tpm.Device, error)
	// turn is held by the call that uses the TPM: a connection without a resource
	// manager has room for three objects.
	turn chan struct{}
}

// location is what a URI says.
type location struct {
	path   string
	device string
	pcrs   []uint
}

func locate(uri string) (location, error) {
	l, err := local.ParseURI(uri, scheme, optDevice, optPCRs)
	if err != nil {
		return location{}, fmt.Errorf("reading the URI of a key sealed to a TPM: %w; %s", err, example)
	}
	found := location{path: l.Path, device: tpm.DefaultPath}
	if l.Path == "" {
		return location{}, fmt.Errorf("reading the URI of a key sealed to a TPM: it names no file; %s", example)
	}
	if device, ok := l.Options[optDevice]; ok {
		found.device = device
	}
	if list, ok := l.Options[optPCRs]; ok {
		found.pcrs, err = parsePCRs(list)
	}
	if err != nil {
		return location{}, fmt.Errorf("reading the URI of a key sealed to a TPM: %w; %s", err, example)
	}
	return found, nil
}

// Open reads the file that a URI names, tpm:///PATH?device=/dev/tpmrm0&pcrs=7. It
// needs no TPM. The PCRs must be those of the file, so that the URI says what the
// key is sealed to; a missing file is [fs.ErrNotExist].
func Open(ctx context.Context, uri string, open Opener) (*Root, error) {
	l, err := locate(uri)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(root.ErrUnavailable, err)
	}
	r, err := l.read(open)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", l.path, err)
	}
	return r, nil
}

func (l location) read(open Opener) (*Root, error) {
	text, err := local.Read(l.path, maxFile, local.Private)
	if err != nil {
		return nil, err
	}
	s, err := parse(string(text.Expose()))
	if err != nil {
		return nil, err
	}
	if !slices.Equal(s.PCRs, l.pcrs) {
		return nil, fmt.Errorf("it is sealed to other PCRs than the URI says, which has %s: write pcrs=%s (%s is none)",
			renderPCRs(l.pcrs), renderPCRs(s.PCRs), noPCRs)
	}
	return newRoot(s, l.device, open)
}

func newRoot(s tpm.Sealed, device string, open Opener) (*Root, error) {
	uri, err := nameOf(s)
	if err != nil {
		return nil, err
	}
	return &Root{uri, s, func() (*tpm.Device, error) { return open(device) }, make(chan struct{}, 1)}, nil
}

// Create has the TPM seal a key from random, to the PCRs that the URI names as
// they are now, and makes the file. A file that exists is an error that is
// [fs.ErrExist].
func Create(ctx context.Context, uri string, random io.Reader, open Opener) (*Root, error) {
	l, err := locate(uri)
	if err != nil {
		return nil, err
	}
	r, err := l.create(ctx, random, open)
	if err != nil {
		return nil, fmt.Errorf("sealing a new key into %s: %w", l.path, err)
	}
	return r, nil
}

func (l location) create(ctx context.Context, random io.Reader, open Opener) (*Root, error) {
	if _, err := os.Lstat(l.path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return nil, err
	}
	text, err := local.Await(ctx, func() (secret.Bytes, error) {
		s, err := l.seal(random, open)
		if err != nil {
			return secret.Bytes{}, err
		}
		return secret.New([]byte(render(s))), nil
	})
	if err != nil {
		return nil, err
	}
	s, err := parse(string(text.Expose()))
	if err != nil {
		return nil, err
	}
	if err := local.Create(l.path, text); err != nil {
		return nil, err
	}
	return newRoot(s, l.device, open)
}

func (l location) seal(random io.Reader, open Opener) (tpm.Sealed, error) {
	key, err := secret.Random(random, root.KeySize)
	if err != nil {
		return tpm.Sealed{}, fmt.Errorf("making a root key: %w", err)
	}
	defer key.Wipe()
	device, err := open(l.device)
	if err != nil {
		return tpm.Sealed{}, classify(err)
	}
	s, err := device.Seal(key, l.pcrs)
	return s, classify(errors.Join(err, device.Close()))
}

// URI returns tpm: and 32 hex digits that name the sealed object, wherever its
// file is.
func (r *Root) URI() string { return r.uri }

// Version is empty: a file has one key.
func (r *Root) Version(context.Context) (string, error) { return "", nil }

// Wrap has the TPM unseal the key, and encrypts under it with AES-256-GCM, context
// being additional data.
func (r *Root) Wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	own, err := r.unseal(ctx)
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.uri, err)
	}
	defer own.Wipe()
	ciphertext, err := local.Encrypt(own, key, context)
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.uri, err)
	}
	return root.Wrapped{Ciphertext: ciphertext}, nil
}

// Unwrap has the TPM unseal the key, and decrypts under it.
func (r *Root) Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	own, err := r.unseal(ctx)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, err)
	}
	defer own.Wipe()
	key, err := local.Decrypt(own, ciphertext, context)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, err)
	}
	return key, nil
}

// unseal returns the root key, which is the caller's to wipe.
func (r *Root) unseal(ctx context.Context) (secret.Bytes, error) {
	return local.Await(ctx, func() (secret.Bytes, error) {
		select {
		case r.turn <- struct{}{}:
		case <-ctx.Done():
			return secret.Bytes{}, fmt.Errorf("%w: waiting for the TPM: %w", root.ErrUnavailable, ctx.Err())
		}
		defer func() { <-r.turn }()
		return r.ask()
	})
}

func (r *Root) ask() (secret.Bytes, error) {
	device, err := r.device()
	if err != nil {
		return secret.Bytes{}, classify(err)
	}
	key, err := device.Unseal(r.sealed)
	if err = errors.Join(err, device.Close()); err == nil && key.Len() != root.KeySize {
		err = fmt.Errorf("%w: it holds %d bytes, not a key", tpm.ErrMalformed, key.Len())
	}
	if err != nil {
		key.Wipe()
		return secret.Bytes{}, classify(err)
	}
	return key, nil
}
