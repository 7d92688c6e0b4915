package serve

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"syscall"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/hsm/pkcs11"
	"keywright.dev/kms/pki"
	"keywright.dev/kms/root"
)

// CheckFiles looks at the files that a configuration names, as a start would.
func CheckFiles(c config.Config) error {
	_, trustErr := openTrust(c.Attestation)
	_, policyErr := openPolicy(c.Policy)
	var namesErr, socketErr, rootErr error
	if len(c.Server.Names) > 0 {
		_, namesErr = pki.ParseNames(c.Server.Names)
	}
	if c.Server.OperatorSocket != "" {
		socketErr = named("server.operator_socket", checkSocket(c.Server.OperatorSocket))
	}
	for _, uri := range c.Server.Roots {
		rootErr = errors.Join(rootErr, named("server.roots", checkRoot(uri)))
	}
	return errors.Join(trustErr, policyErr, namesErr, socketErr, rootErr)
}

// checkRoot looks at what a root's URI names. A file of another user's, such as the
// service's, opens for that user alone: then it must only be there.
func checkRoot(uri string) error {
	if u, err := url.Parse(uri); err == nil && u.Path != "" && (u.Scheme == "file" || u.Scheme == "tpm") {
		info, err := os.Stat(u.Path)
		switch {
		case err != nil:
			return err
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is no regular file", u.Path)
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
			return nil
		}
		if u.Query().Has("passphrase-fd") {
			return nil // whoever starts the service writes to it
		}
	}
	r, err := opener{modules: &pkcs11.Modules{}}.open(context.Background(), uri)
	if err != nil {
		return err
	}
	return closeRoots([]root.Root{r})
}

// named puts the key of the configuration in front of an error.
func named(key string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
