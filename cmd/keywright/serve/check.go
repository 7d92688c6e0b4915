package serve

import (
	"errors"
	"fmt"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/pki"
)

// CheckFiles looks at the files that a configuration names, as a start would.
func CheckFiles(c config.Config) error {
	_, trustErr := openTrust(c.Attestation)
	_, policyErr := openPolicy(c.Policy)
	var namesErr, socketErr error
	if len(c.Server.Names) > 0 {
		_, namesErr = pki.ParseNames(c.Server.Names)
	}
	if c.Server.OperatorSocket != "" {
		socketErr = named("server.operator_socket", checkSocket(c.Server.OperatorSocket))
	}
	return errors.Join(trustErr, policyErr, namesErr, socketErr)
}

// named puts the key of the configuration in front of an error.
func named(key string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
