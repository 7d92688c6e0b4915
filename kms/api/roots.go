package api

import "context"

// Paths of roots of trust, on the operator listener.
const (
	PathRoots       = "/v1/roots"
	PathRootsRewrap = "/v1/roots/rewrap"
	PathRootsRemove = "/v1/roots/remove"
	PathLeasesDrop  = "/v1/leases/drop"
	PathColdStart   = "/v1/cold-start"
)

// Root is the state of one root of trust.
type Root struct {
	URI        string `json:"uri"`
	Configured bool   `json:"configured"`
	// Offline says which people open what it wraps; absent for a root that opens
	// it by itself.
	Offline string `json:"offline,omitempty"`
	// Wraps counts the keyring versions that it wraps, of Versions.
	Wraps    int `json:"wraps"`
	Versions int `json:"versions"`
	// Error is what it answered when it was asked to decrypt just now; absent
	// where it did, or is not asked.
	Error string `json:"error,omitempty"`
}

// Lease is how long a keyring version is held.
type Lease struct {
	Keyring string `json:"keyring"`
	Version uint32 `json:"version"`
	// Seconds that it is held still; 0 where it is not.
	Seconds int64 `json:"seconds"`
	// Root opened it last.
	Root string `json:"root,omitempty"`
	// Error is why it could not be opened the last time.
	Error string `json:"error,omitempty"`
}

// Roots are the roots and the leases under which what they opened is held.
type Roots struct {
	Roots  []Root  `json:"roots"`
	Leases []Lease `json:"leases"`
}

// RootStep is one wrapper around the key of a keyring version.
type RootStep struct {
	Keyring string `json:"keyring,omitempty"`
	Version uint32 `json:"version,omitempty"`
	Root    string `json:"root"`
	// Was is the version of the root's key that wrapped before.
	Was string `json:"was,omitempty"`
	// Error is why it was not made. Without a keyring the root did not answer.
	Error string `json:"error,omitempty"`
}

// RootsRewrapped is what a rewrap of roots came to.
type RootsRewrapped struct {
	Done   []RootStep `json:"done"`
	Failed []RootStep `json:"failed"`
}

// RemoveRoot is the body that removes a root's wrappers.
type RemoveRoot struct {
	URI string `json:"uri" maxLength:"1024" doc:"The root as it is listed."`
}

// RootRemoved is what the removal of a root came to.
type RootRemoved struct {
	Wrappers int `json:"wrappers"`
}

// DropLeases is the body that ends all leases.
type DropLeases struct {
	Reason string `json:"reason,omitempty" maxLength:"1024" doc:"Why; it goes into the audit log."`
}

// ColdStart is what would open a keyring version after a restart.
type ColdStart struct {
	Keyring string `json:"keyring"`
	Version uint32 `json:"version"`
	// Opens are roots that open it by themselves, People those with people.
	Opens  []string `json:"opens"`
	People []string `json:"people"`
}

// ColdStarts are what would open each keyring version.
type ColdStarts struct {
	Versions []ColdStart `json:"versions"`
}

// Roots asks every root to decrypt.
func (o *OperatorClient) Roots(ctx context.Context) (Roots, error) {
	return get[Roots](ctx, o.c, PathRoots, nil)
}

// RewrapRoots makes the wrappers that lack or are of an old version; of one root
// where root is not empty.
func (o *OperatorClient) RewrapRoots(ctx context.Context, root string) (RootsRewrapped, error) {
	return post[RootsRewrapped](ctx, o.c, PathRootsRewrap, ChooseRoot{root})
}

// RemoveRoot deletes the wrappers of a root that is configured no more.
func (o *OperatorClient) RemoveRoot(ctx context.Context, uri string) (RootRemoved, error) {
	return post[RootRemoved](ctx, o.c, PathRootsRemove, RemoveRoot{uri})
}

// DropLeases ends all leases.
func (o *OperatorClient) DropLeases(ctx context.Context, reason string) error {
	_, err := post[struct{}](ctx, o.c, PathLeasesDrop, DropLeases{reason})
	return err
}

// ColdStart tells what would open each keyring version after a restart.
func (o *OperatorClient) ColdStart(ctx context.Context) (ColdStarts, error) {
	return get[ColdStarts](ctx, o.c, PathColdStart, nil)
}
