package sealed

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/root"
)

// classify says of an error of the TPM whether to try again, and what to do.
func classify(err error) error {
	var code tpm2.TPMRC
	switch {
	case err == nil, errors.Is(err, root.ErrUnavailable):
		return err
	case errors.Is(err, tpm.ErrOtherMachine):
		return refused(err, "it is sealed for another TPM; bring that machine back, or use another root and seal a new key here")
	case errors.Is(err, tpm.ErrPCRs):
		return refused(err, "boot what was booted at the sealing, or use another root and seal a new key to this boot")
	case errors.Is(err, tpm.ErrMalformed):
		return refused(err, "bring back a copy of the file")
	case errors.Is(err, tpm.ErrNoDevice):
		return refused(err, "mend device in the root's URI")
	case errors.Is(err, fs.ErrPermission):
		return refused(err, "let the service's user use the device: it belongs to the group tss on most systems")
	case errors.Is(err, tpm2.TPMRCLockout):
		return refused(err, "")
	case !errors.As(err, &code), code.IsWarning(), errors.Is(err, tpm2.TPMRCFailure), errors.Is(err, tpm2.TPMRCInitialize),
		errors.Is(err, tpm2.TPMRCPCRChanged):
		return fmt.Errorf("%w: %w", root.ErrUnavailable, err)
	default:
		return refused(err, "")
	}
}

func refused(err error, advice string) error {
	if advice == "" {
		return fmt.Errorf("%w: %w", root.ErrRefused, err)
	}
	return fmt.Errorf("%w: %w: %s", root.ErrRefused, err, advice)
}
