package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/hsm/pkcs11"
	"keywright.dev/kms/pki"
	"keywright.dev/kms/root"
)

// unitCredentials is where systemd passes the service's credentials.
const unitCredentials = "/run/credentials/keywright.service"

// CheckFiles looks at the files that a configuration names, as a start would.
// credentials is the folder of those that the service manager passed, if it did.
func CheckFiles(c config.Config, credentials string, now time.Time) error {
	_, documentsErr := readDocuments(c)
	_, excusesErr := openExcuses(c.Rotation, now)
	var namesErr, socketErr error
	if len(c.Server.Names) > 0 {
		_, namesErr = pki.ParseNames(c.Server.Names)
	}
	if c.Server.OperatorSocket != "" {
		socketErr = named("server.operator_socket", checkSocket(c.Server.OperatorSocket))
	}
	return errors.Join(documentsErr, excusesErr, namesErr, socketErr, checkRoots(c.Server.Roots, credentials))
}

func checkRoots(uris []string, credentials string) error {
	var (
		errs  []error
		names []string
	)
	for _, uri := range uris {
		name, err := checkRoot(uri, credentials)
		if name != "" && slices.Contains(names, name) {
			err = errTwice(name)
		}
		names = append(names, name)
		errs = append(errs, named("server.roots", err))
	}
	if onlyPeople(uris) {
		errs = append(errs, named("server.roots", errOnlyPeople))
	}
	return errors.Join(errs...)
}

// checkRoot looks at what a root's URI names, and returns the root's name where it
// opened. A file of another user's, such as the service's, opens for that user
// alone: then it must only be there. What the service manager passes to the unit
// need not be there.
func checkRoot(uri, credentials string) (string, error) {
	if u, err := url.Parse(uri); err == nil && u.Path != "" && (u.Scheme == "file" || u.Scheme == "tpm") {
		info, err := os.Stat(u.Path)
		switch {
		case err != nil:
			return "", err
		case !info.Mode().IsRegular():
			return "", fmt.Errorf("%s is no regular file", u.Path)
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
			return "", nil
		}
		if u.Query().Has("passphrase-fd") {
			return "", nil // whoever starts the service writes to it
		}
	}
	folder := cmp.Or(credentials, unitCredentials)
	r, err := opener{folder, &pkcs11.Modules{}}.open(context.Background(), uri)
	switch {
	case err == nil:
		return r.URI(), closeRoots([]root.Root{r})
	case credentials == "" && isOfUnit(err):
		return "", nil
	default:
		return "", err
	}
}

// isOfUnit tells that a credential of the unit's is not there, or not for us.
func isOfUnit(err error) bool {
	var at *fs.PathError
	return errors.As(err, &at) && filepath.Dir(at.Path) == unitCredentials
}

// named puts the key of the configuration in front of an error.
func named(key string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
