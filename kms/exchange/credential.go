package exchange

import (
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/kms/secret"
)

// CredentialSize is the length in bytes of the secret in a credential.
const CredentialSize = 32

// MakeCredential encrypts a secret so that only the TPM which holds both keys
// gives it back from TPM2_ActivateCredential (TPM 2.0 part 1, section 24). blob
// is a TPMS_ID_OBJECT and encrypted the contents of a TPM2B_ENCRYPTED_SECRET.
//
// It fails unless credential has [CredentialSize] bytes: no EK template can
// carry more.
func MakeCredential(random io.Reader, ek EK, ak AK, credential secret.Bytes) (blob, encrypted []byte, err error) {
	if credential.Len() != CredentialSize {
		return nil, nil, fmt.Errorf("making a credential: the secret has %d bytes, want %d", credential.Len(), CredentialSize)
	}
	public, err := parsePublic(string(ek.Public))
	if err != nil {
		return nil, nil, err
	}
	key, err := tpm2.ImportEncapsulationKey(&public)
	if err != nil {
		return nil, nil, fmt.Errorf("importing an endorsement key: %w", err)
	}
	blob, encrypted, err = tpm2.CreateCredential(random, key, ak.Name, credential.Expose())
	if err != nil {
		return nil, nil, fmt.Errorf("making a credential: %w", err)
	}
	return blob, encrypted, nil
}
