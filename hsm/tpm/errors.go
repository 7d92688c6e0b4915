package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// ErrOtherMachine means that the TPM is not the one that was expected.
var ErrOtherMachine = errors.New("this is the TPM of another machine")

// ErrNoDevice means that a path leads to something else than a TPM's device.
var ErrNoDevice = errors.New("it is not a character device")

// explain says what was being done and, for the refusals an operator can do
// something about, what that is. It keeps the TPM's response code in the chain.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if advice := advice(err); advice != "" {
		return fmt.Errorf("%s: %w: %s", doing, err, advice)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func advice(err error) string {
	switch {
	case errors.Is(err, tpm2.TPMRCFailure):
		return "the TPM failed its self-test; power-cycle the machine, and replace the TPM or the virtual TPM's state if that does not help"
	case errors.Is(err, tpm2.TPMRCInitialize):
		return "the firmware did not start the TPM up"
	case errors.Is(err, tpm2.TPMRCLockout):
		return "the TPM is locked after wrong authorizations; wait for its lockout to pass or run tpm2_dictionarylockout --clear-lockout"
	case errors.Is(err, tpm2.TPMRCHierarchy):
		return "the endorsement hierarchy is disabled; enable it in the firmware's settings and reset the machine"
	case errors.Is(err, tpm2.TPMRCObjectMemory), errors.Is(err, tpm2.TPMRCSessionMemory), errors.Is(err, tpm2.TPMRCSessionHandles):
		return "another program fills the TPM's memory; use the kernel's resource manager, " + DefaultPath
	default:
		return ""
	}
}

// explainEndorsement is [explain] for commands that the endorsement hierarchy
// authorizes.
func explainEndorsement(doing string, err error) error {
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return fmt.Errorf("%s: %w: the endorsement hierarchy has a password; clear it with tpm2_changeauth -c endorsement", doing, err)
	}
	return explain(doing, err)
}

// explainOwner is [explain] for commands that the owner hierarchy authorizes.
func explainOwner(doing string, err error) error {
	switch {
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		return fmt.Errorf("%s: %w: the owner hierarchy has a password; have its owner make the storage root key of the "+
			"ECC P-256 template persistent at 0x81000001, or clear the password with tpm2_changeauth -c owner", doing, err)
	case errors.Is(err, tpm2.TPMRCHierarchy):
		return fmt.Errorf("%s: %w: the storage hierarchy is disabled; enable it in the firmware's settings and reset the machine", doing, err)
	default:
		return explain(doing, err)
	}
}
