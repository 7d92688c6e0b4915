package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/hsm/pkcs11"
	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/store/sqlite"
)

// RecoveryOptions are what a recovery by custodians is made of.
type RecoveryOptions struct {
	Config config.Config
	// Credentials is the folder of systemd's credentials; empty without.
	Credentials string
	// To is the URI of the root that is to wrap what is recovered.
	To     string
	Logger *slog.Logger
	Clock  func() time.Time
	Uptime func() time.Duration
}

// Recovery is a store that no root opens, with what custodians hold of it. While
// it is open no service is.
type Recovery struct {
	RecoveryOptions
	store    *sqlite.Store
	to       root.Root
	versions []kms.KeyringVersion
	// wrappers and entries are the same, one for one.
	wrappers []kms.CustodyWrapper
	entries  []quorum.Entry
}

// OpenRecovery opens the store of a stopped service, and the root that is to wrap
// its keys, which must wrap and unwrap just now.
func OpenRecovery(ctx context.Context, o RecoveryOptions) (r *Recovery, err error) {
	r = &Recovery{RecoveryOptions: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := r.openTarget(ctx); err != nil {
		return r, fmt.Errorf("opening the root that the keys go to: %w", err)
	}
	path := StorePath(o.Config.Server.Data)
	missing, err := checkStore(path)
	switch {
	case err != nil:
		return r, err
	case missing:
		return r, fmt.Errorf("there is no store %s: name its folder with --data, or restore a backup first: keywright server restore", path)
	}
	if r.store, err = sqlite.Open(ctx, sqlite.Config{Path: path, Clock: o.Clock, Logger: o.Logger}); err != nil {
		return r, err
	}
	return r, r.read(ctx)
}

func (r *Recovery) openTarget(ctx context.Context) error {
	var err error
	if r.to, err = (opener{r.Credentials, &pkcs11.Modules{}}).open(ctx, r.To); err != nil {
		return err
	}
	if _, offline := r.to.(root.Offline); offline {
		return errors.New("it opens with people alone: name one that the service can start with")
	}
	key, err := secret.Random(rand.Reader, root.KeySize)
	if err != nil {
		return err
	}
	defer key.Wipe()
	probe := []byte("keywright/probe/v1")
	w, err := r.to.Wrap(ctx, key, probe)
	if err != nil {
		return err
	}
	back, err := r.to.Unwrap(ctx, w.Ciphertext, probe)
	if err != nil {
		return err
	}
	defer back.Wipe()
	if !back.Equal(key) {
		return fmt.Errorf("%s does not give back what it wrapped", r.to.URI())
	}
	return nil
}

// read finds what custodians hold.
func (r *Recovery) read(ctx context.Context) error {
	var err error
	if r.versions, err = r.store.Keyrings(ctx); err != nil {
		return err
	}
	r.wrappers = kms.CustodyWrappers(r.versions, quorum.Scheme+":")
	if len(r.wrappers) == 0 {
		return errors.New("this store holds nothing for custodians: no keyring version is wrapped for a quorum")
	}
	for _, w := range r.wrappers {
		r.entries = append(r.entries, quorum.Entry{Name: w.Ref(), Context: w.Context, Wrapped: w.Wrapped})
	}
	return nil
}

// Entries are what custodians hold, in the order in which [Recovery.Finish] wants
// what came of them.
func (r *Recovery) Entries() []quorum.Entry { return r.entries }

// Lacking names the versions of the system keyring that would not open with these
// results. Without them nothing is read, and nothing recorded.
func (r *Recovery) Lacking(results []quorum.Result) []string {
	var names []string
	for _, v := range r.versions {
		name := fmt.Sprintf("keyring/%s@%d", v.Keyring, v.Version)
		recovered := slices.ContainsFunc(results, func(result quorum.Result) bool { return result.Name == name && result.Err == nil })
		wrapped := slices.ContainsFunc(v.Wrappers, func(w kms.Wrapper) bool { return w.Root == r.to.URI() })
		used := v.Status == kms.KeyringEnabled || v.Status == kms.KeyringDisabled
		if v.Keyring == kms.SystemKeyring && used && !recovered && !wrapped {
			names = append(names, name)
		}
	}
	return names
}

// ShareFiles returns the shares as the store has them, for custodians whose files
// are older than a keyring version, or lost.
func (r *Recovery) ShareFiles(ctx context.Context) ([]quorum.File, error) {
	keys, err := r.store.ServiceKeys(ctx)
	if err != nil {
		return nil, err
	}
	installation := "unknown"
	for _, k := range keys {
		if k.Kind == kms.ServiceKeyIdentity {
			installation = "service key " + k.ID
		}
	}
	var files []quorum.File
	for _, uri := range r.quorums() {
		var entries []quorum.Entry
		for i, w := range r.wrappers {
			if w.Root == uri {
				entries = append(entries, r.entries[i])
			}
		}
		of, err := quorum.ShareFiles(installation, r.Clock(), entries)
		if err != nil {
			return nil, err
		}
		if len(r.quorums()) > 1 { // who is in both has a file of each
			for i := range of {
				of[i].Name = strings.TrimPrefix(uri, quorum.Scheme+":") + "-" + of[i].Name
			}
		}
		files = append(files, of...)
	}
	return files, nil
}

// quorums returns the names of the quorums that hold something.
func (r *Recovery) quorums() []string {
	var uris []string
	for _, w := range r.wrappers {
		if !slices.Contains(uris, w.Root) {
			uris = append(uris, w.Root)
		}
	}
	return uris
}

// Recovered is what a recovery came to.
type Recovered struct {
	Root   string // that wraps what was recovered
	Done   []kms.RootStep
	Failed []kms.RootFailure
}

// Finish has the new root wrap every key that was recovered, and the audit log say
// from whose shares. The results are those of the entries; their keys stay the
// caller's to wipe. What an earlier call did already is not done again.
func (r *Recovery) Finish(ctx context.Context, results []quorum.Result) (Recovered, error) {
	out := Recovered{Root: r.to.URI()}
	keys, err := kms.OpenKeys(ctx, kms.KeysConfig{
		Store: r.store, Roots: append([]root.Root{r.to}, r.recovered(results)...), Clock: r.Clock, Uptime: r.Uptime, Random: rand.Reader,
	})
	if err != nil {
		return out, err
	}
	defer keys.Wipe()
	service, err := r.service(ctx, keys)
	if err != nil {
		return out, err
	}
	by := kms.Operator{Actor: audit.Actor{Kind: audit.ActorOperator, ID: fmt.Sprintf("uid/%d", os.Geteuid())}}
	if err := r.record(ctx, service, by, results); err != nil {
		return out, err
	}
	out.Done, out.Failed, err = service.RewrapRoots(ctx, by, r.to.URI())
	return out, err
}

// service is the domain as far as wrappers and the audit log need it.
func (r *Recovery) service(ctx context.Context, keys *kms.Keys) (*kms.Service, error) {
	identities, err := kms.OpenIdentities(ctx, keys, identityMaker())
	if err != nil {
		return nil, err
	}
	log, err := openLog(ctx, keys, "", "recovered/keywright/audit")
	if err != nil {
		return nil, err
	}
	return kms.New(kms.Config{Store: r.store, Keys: keys, Identities: identities, Log: log, Clock: r.Clock, Random: rand.Reader})
}

func (r *Recovery) record(ctx context.Context, service *kms.Service, by kms.Operator, results []quorum.Result) error {
	for _, uri := range r.quorums() {
		var custodians []string
		versions := 0
		for i, result := range results {
			if r.wrappers[i].Root != uri || result.Err != nil {
				continue
			}
			versions++
			custodians = append(custodians, result.By...)
		}
		slices.Sort(custodians)
		if versions == 0 {
			continue
		}
		if err := service.RecordRecovery(ctx, by, uri, slices.Compact(custodians), versions); err != nil {
			return err
		}
	}
	return nil
}

// recovered returns a root for each quorum, which opens what its custodians gave.
func (r *Recovery) recovered(results []quorum.Result) []root.Root {
	var list []root.Root
	for _, uri := range r.quorums() {
		keys := make(map[string]secret.Bytes)
		for i, result := range results {
			if r.wrappers[i].Root == uri && result.Err == nil {
				keys[string(r.wrappers[i].Context)] = result.Key
			}
		}
		list = append(list, &together{uri, keys})
	}
	return list
}

// Close closes the store and the root.
func (r *Recovery) Close() error {
	var errs []error
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	if r.to != nil {
		errs = append(errs, closeRoots([]root.Root{r.to}))
	}
	return errors.Join(errs...)
}

// together is a quorum whose custodians gave their shares: it opens, and wraps
// nothing.
type together struct {
	uri  string
	keys map[string]secret.Bytes // by context
}

func (t *together) URI() string { return t.uri }

func (t *together) Version(context.Context) (string, error) { return "", nil }

func (t *together) Wrap(context.Context, secret.Bytes, []byte) (root.Wrapped, error) {
	return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w: it was put together to open alone", t.uri, root.ErrRefused)
}

// Unwrap takes the key for the wrapper's: package quorum held them against each
// other.
func (t *together) Unwrap(_ context.Context, _, context []byte) (secret.Bytes, error) {
	key, ok := t.keys[string(context)]
	if !ok {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w: its custodians gave too few shares", t.uri, root.ErrDoesNotOpen)
	}
	return key.Clone(), nil
}
