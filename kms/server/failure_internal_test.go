package server

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

// A rotation fails for one root of several: to say that none answers would send
// whoever reads it to all of them.
func TestRootThatDoesNotWrapIsNamed(t *testing.T) {
	err := fmt.Errorf("creating keyring/default@2: %w", &kms.WrapError{Root: "tpm:12", Cause: kms.ErrRoots})
	f := failureOf(err)
	assert.Equal(t, api.CodeRoots, f.body.Code)
	assert.Contains(t, f.body.Message, "tpm:12 did not wrap the new key")
	assert.Equal(t, err, f.cause)

	f = failureOf(&kms.WrapError{Root: "tpm:12", Cause: assert.AnError})
	assert.Equal(t, api.CodeInternal, f.body.Code, "no later try does better")
	assert.Contains(t, f.body.Message, "tpm:12 did not wrap the new key")
}
