package serve

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keywright.dev/clients/awskms"
	"keywright.dev/clients/vault"
	"keywright.dev/cmd/keywright/config"
	"keywright.dev/hsm/pkcs11"
	"keywright.dev/hsm/tpm"
	"keywright.dev/hsm/tpm/sealed"
	"keywright.dev/kms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/root/quorum"
	"keywright.dev/kms/secret"
)

// rootChoice are the roots that were found.
type rootChoice struct {
	list []root.Root
	// path is the file of the embedded root, where that is the only one.
	path string
	// clear is a file that has a root's key in the clear.
	clear string
	// made says that this start made it.
	made bool
}

func (c rootChoice) uris() []string {
	var uris []string
	for _, r := range c.list {
		uris = append(uris, r.URI())
	}
	return uris
}

// wrong says which root key a store wants, where err is that the embedded one
// opens none of its keys.
func (c rootChoice) wrong(ctx context.Context, store kms.ServiceKeys, err error) error {
	if c.path == "" {
		return err
	}
	versions, readErr := store.Keyrings(ctx)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	var wraps []string
	for _, v := range versions {
		for _, w := range v.Wrappers {
			wraps = append(wraps, w.Root)
		}
	}
	if len(wraps) == 0 || slices.Contains(wraps, c.list[0].URI()) {
		return err
	}
	return fmt.Errorf("opening keyrings: %s is not the root key of this store, whose keys are wrapped under %s: bring that one back",
		c.path, wraps[0])
}

// openRoots opens the roots that are configured, or the embedded one: it makes
// that for a data folder that is new.
func openRoots(ctx context.Context, s config.Server, credentials string) (rootChoice, error) {
	if len(s.Roots) == 0 {
		return openEmbedded(s.Data, credentials)
	}
	var c rootChoice
	o := opener{credentials, &pkcs11.Modules{}}
	for _, uri := range s.Roots {
		r, err := o.open(ctx, uri)
		if err != nil {
			return c, fmt.Errorf("opening the roots of trust: %w", err)
		}
		c.clear = cmp.Or(c.clear, inTheClear(uri))
		twice := slices.Contains(c.uris(), r.URI())
		c.list = append(c.list, r)
		if twice {
			return c, fmt.Errorf("opening the roots of trust: server.roots %w", errTwice(r.URI()))
		}
	}
	if onlyPeople(s.Roots) {
		return c, fmt.Errorf("opening the roots of trust: server.roots %w", errOnlyPeople)
	}
	return c, nil
}

// inTheClear returns the path of a key file that neither a credential nor a
// passphrase guards: these are all that a query may name.
func inTheClear(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" || u.RawQuery != "" {
		return ""
	}
	return u.Path
}

func errTwice(name string) error { return fmt.Errorf("names %s twice", name) }

// errOnlyPeople is of roots by which a first start would do, and no later one.
var errOnlyPeople = errors.New("names custodians alone, by whom no service starts: name a root before them that opens keys by itself")

func onlyPeople(uris []string) bool {
	return len(uris) > 0 && !slices.ContainsFunc(uris, func(uri string) bool { return schemeOf(uri) != schemePeople })
}

const schemePeople = "age-quorum"

func schemeOf(uri string) string {
	scheme, _, _ := strings.Cut(uri, ":")
	return scheme
}

// kindError is of a URI that names no kind of root.
func kindError(scheme string) error {
	return fmt.Errorf("%.16q is no kind of root that there is: want one of file, vault, awskms, pkcs11, tpm, age-quorum", scheme)
}

// opener opens roots by their URIs.
type opener struct {
	// credentials is the folder of those that systemd passes, empty without.
	credentials string
	// modules are those that PKCS#11 roots of the process share.
	modules *pkcs11.Modules
}

func (o opener) open(ctx context.Context, uri string) (root.Root, error) {
	switch scheme := schemeOf(uri); scheme {
	case "file":
		return file.OpenURI(ctx, uri, o.credentials)
	case "tpm":
		return sealed.Open(ctx, uri, tpm.Open)
	case "vault":
		return vault.Open(ctx, uri, vault.Options{Clock: time.Now, Wait: wait, Random: rand.Reader, Credentials: o.credentials})
	case "pkcs11":
		return o.openToken(ctx, uri)
	case "awskms":
		return awskms.Open(ctx, uri)
	case schemePeople:
		return quorum.Open(ctx, uri, rand.Reader)
	default:
		return nil, kindError(scheme)
	}
}

// token is a PKCS#11 root that is closed like any other.
type token struct{ *pkcs11.Root }

const (
	// reaching is how long a start waits for a token; one whose module hangs is
	// waited for as one that is away.
	reaching = 10 * time.Second
	// closing is how long a token's connection is waited for.
	closing = 5 * time.Second
)

// Close ends the connection.
func (t token) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	t.Root.Close(ctx)
	return nil
}

func (o opener) settings() pkcs11.Settings {
	return pkcs11.Settings{Random: rand.Reader, Modules: o.modules, Credentials: o.credentials}
}

func (o opener) openToken(ctx context.Context, uri string) (root.Root, error) {
	ctx, cancel := context.WithTimeout(ctx, reaching)
	defer cancel()
	r, err := pkcs11.Open(ctx, uri, o.settings())
	if err != nil {
		return nil, err
	}
	return token{r}, nil
}

// InitRoot makes the key of a root, and returns the URI to configure and the
// root's name.
func InitRoot(ctx context.Context, uri, credentials string) (configure, name string, err error) {
	o := opener{credentials, &pkcs11.Modules{}}
	var r root.Root
	switch scheme := schemeOf(uri); scheme {
	case "pkcs11":
		if uri, err = pkcs11.Init(ctx, uri, o.settings()); err == nil {
			r, err = o.open(ctx, uri)
		}
	case "file":
		r, err = file.CreateURI(ctx, uri, credentials, rand.Reader)
	case "tpm":
		r, err = sealed.Create(ctx, uri, rand.Reader, tpm.Open)
	case "vault", "awskms", schemePeople:
		err = fmt.Errorf("making a root of trust: the key of %s is not made here: docs/roots says where", scheme)
	default:
		err = fmt.Errorf("making a root of trust: %w", kindError(scheme))
	}
	if err != nil {
		return "", "", err
	}
	return uri, r.URI(), closeRoots([]root.Root{r})
}

func openEmbedded(data, credentials string) (rootChoice, error) {
	if path := filepath.Join(credentials, rootFile); credentials != "" && isFile(path) {
		r, err := file.OpenCredential(path)
		return rootChoice{list: []root.Root{r}, path: path}, err
	}
	path := filepath.Join(data, rootFile)
	r, err := file.Open(path)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		r, err = createRoot(data, path)
	}
	return rootChoice{list: []root.Root{r}, path: path, clear: path, made: made}, err
}

// createRoot makes a key where there is no store yet: to an existing store a
// new key is of no use, and would hide that the right one is missing.
func createRoot(data, path string) (*file.Root, error) {
	if isFile(StorePath(data)) {
		return nil, fmt.Errorf("opening root key file %s: it is missing, and without it the store opens nothing: "+
			"bring it back from where you keep its copy, or name another root that wraps its keys in server.roots", path)
	}
	if err := file.Create(path, rand.Reader); err != nil {
		return nil, err
	}
	return file.Open(path)
}

// rootPause is how long a start waits before it asks the roots again.
const rootPause = 5 * time.Second

// awaitKeys opens the keyrings, and waits for the roots as long as none answers.
func awaitKeys(ctx context.Context, c kms.KeysConfig, waiting func(error), logger *slog.Logger) (*kms.Keys, error) {
	for {
		keys, err := kms.OpenKeys(ctx, c)
		if !errors.Is(err, kms.ErrRoots) {
			return keys, err
		}
		logger.Warn("the start waits for a root of trust", "error", err, "next", rootPause)
		waiting(err)
		if ended := wait(ctx, rootPause); ended != nil {
			return nil, errors.Join(err, ended)
		}
	}
}

// wait waits, or returns why ctx ended.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// closeRoots ends what roots do in the background.
func closeRoots(roots []root.Root) error {
	var errs []error
	for _, r := range roots {
		if c, ok := r.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// metered is a root whose calls are counted.
type metered struct {
	root.Root
	count func(uri, operation string, err error)
}

// meter counts the calls of roots but of those that people open.
func meter(roots []root.Root, count func(uri, operation string, err error)) []root.Root {
	list := make([]root.Root, 0, len(roots))
	for _, r := range roots {
		if _, offline := r.(root.Offline); !offline {
			r = metered{r, count}
		}
		list = append(list, r)
	}
	return list
}

// Version implements [root.Root].
func (m metered) Version(ctx context.Context) (string, error) {
	version, err := m.Root.Version(ctx)
	m.count(m.URI(), "version", err)
	return version, err
}

// Wrap implements [root.Root].
func (m metered) Wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	w, err := m.Root.Wrap(ctx, key, context)
	m.count(m.URI(), "wrap", err)
	return w, err
}

// Unwrap implements [root.Root].
func (m metered) Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	key, err := m.Root.Unwrap(ctx, ciphertext, context)
	m.count(m.URI(), "unwrap", err)
	return key, err
}
