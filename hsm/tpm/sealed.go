package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

const (
	// MaxSealed bounds what is sealed, in bytes, as PC Client TPMs do.
	MaxSealed = 128
	// MaxSealedPCRs bounds the PCRs of a policy: what one command reads.
	MaxSealedPCRs = 8

	// maxPrivate bounds a private area, in bytes: the sealed bytes, a seed, a
	// digest, an authorization, and what protects them.
	maxPrivate = 512
	maxPublic  = 128
	lastPCR    = 23
	nameSize   = 2 + 32 // algorithm and SHA-256
)

// ErrMalformed means that a [Sealed] is none that [Device.Seal] makes.
var ErrMalformed = errors.New("malformed sealed object")

// Sealed is a short secret that one TPM alone can read, in TPM objects that may
// lie anywhere. Who has them and may use that TPM can read it, for they have no
// password.
type Sealed struct {
	// Parent is the Name of the storage root key that it is sealed under.
	Parent []byte
	// PCRs of the SHA-256 bank, ascending, that must have the values which they
	// had at the sealing. None: it opens whatever was booted.
	PCRs []uint
	// Public is the object's TPMT_PUBLIC.
	Public []byte
	// Private is the object's private area, encrypted by the TPM: the contents of
	// a TPM2B_PRIVATE.
	Private []byte
}

// Name returns the object's Name, which no other sealed object has, or
// [ErrMalformed].
func (s Sealed) Name() ([]byte, error) {
	object, err := s.object()
	if err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(&object)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return name.Buffer, nil
}

// object checks the form and returns the public area.
func (s Sealed) object() (tpm2.TPMTPublic, error) {
	if len(s.Parent) != nameSize || s.Parent[0] != 0 || s.Parent[1] != byte(tpm2.TPMAlgSHA256) {
		return tpm2.TPMTPublic{}, fmt.Errorf("%w: its parent has no SHA-256 Name", ErrMalformed)
	}
	if err := checkPCRs(s.PCRs); err != nil {
		return tpm2.TPMTPublic{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(s.Private) == 0 || len(s.Private) > maxPrivate || len(s.Public) > maxPublic {
		return tpm2.TPMTPublic{}, fmt.Errorf("%w: its areas have %d and %d bytes", ErrMalformed, len(s.Public), len(s.Private))
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.Public)
	if err != nil {
		return tpm2.TPMTPublic{}, fmt.Errorf("%w: reading its public area: %w", ErrMalformed, err)
	}
	if err := checkSealed(*public, len(s.PCRs) > 0); err != nil {
		return tpm2.TPMTPublic{}, err
	}
	if !bytes.Equal(tpm2.Marshal(public), s.Public) {
		return tpm2.TPMTPublic{}, fmt.Errorf("%w: its public area has more than one form", ErrMalformed)
	}
	return *public, nil
}

// checkSealed compares a public area with that which seals, but for the digests
// that differ from object to object.
func checkSealed(public tpm2.TPMTPublic, pcrs bool) error {
	policy, want := public.AuthPolicy.Buffer, 0
	if pcrs {
		want = 32
	}
	unique, err := public.Unique.KeyedHash()
	if err != nil || len(unique.Buffer) != 32 || len(policy) != want {
		return fmt.Errorf("%w: its public area is not that of sealed data", ErrMalformed)
	}
	template := sealedTemplate(policy)
	template.Unique = public.Unique
	if !bytes.Equal(tpm2.Marshal(template), tpm2.Marshal(public)) {
		return fmt.Errorf("%w: its public area is not that of sealed data", ErrMalformed)
	}
	return nil
}

// sealedTemplate is a data object that never leaves its TPM. It is used under the
// policy where there is one, else with the empty password, which nobody needs to
// guess: so noDA, for a service must start although somebody else guessed at a
// password of this TPM.
func sealedTemplate(policy []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgKeyedHash,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, NoDA: true,
			UserWithAuth: len(policy) == 0, AdminWithPolicy: len(policy) > 0,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
			Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{}),
	}
}

// checkPCRs wants them ascending, since that is how [Sealed] keeps them.
func checkPCRs(pcrs []uint) error {
	switch {
	case len(pcrs) > MaxSealedPCRs:
		return fmt.Errorf("%d PCRs, at most %d are allowed", len(pcrs), MaxSealedPCRs)
	case !slices.IsSorted(pcrs) || len(slices.Compact(slices.Clone(pcrs))) != len(pcrs):
		return fmt.Errorf("PCRs %v are not in ascending order", pcrs)
	case len(pcrs) > 0 && pcrs[len(pcrs)-1] > lastPCR:
		return fmt.Errorf("there is no PCR %d", pcrs[len(pcrs)-1])
	}
	return nil
}
