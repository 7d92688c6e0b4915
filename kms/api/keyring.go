package api

import (
	"context"
	"time"
)

// Keyring is a keyring as operators see it.
type Keyring struct {
	Name string `json:"name"`
	// Current is the version that new secrets are wrapped with: the newest enabled
	// one.
	Current  uint32           `json:"current"`
	Versions []KeyringVersion `json:"versions"`
}

// KeyringVersion is one key of a keyring, without the key.
type KeyringVersion struct {
	Keyring string `json:"keyring"`
	Version uint32 `json:"version"`
	// Status is enabled, disabled, destroy-scheduled or destroyed. A disabled version
	// wraps nothing new and still opens; the last two open nothing.
	Status  string    `json:"status"`
	Created time.Time `json:"created"`
	// Changed is when it came into its state, ChangedBy who brought it there; of one
	// that is destroyed, who scheduled that.
	Changed   *time.Time `json:"changed,omitempty"`
	ChangedBy string     `json:"changed_by,omitempty"`
	DestroyAt *time.Time `json:"destroy_at,omitempty"`
	// Roots are the roots of trust that wrap it.
	Roots []string `json:"roots"`
	// Dependents counts what it opens.
	Dependents int64 `json:"dependents"`
	// Outside is of one that served the key API.
	Outside *Outside `json:"outside,omitempty"`
}

// Outside is what is known of ciphertexts that a version wrapped for the key API,
// and that only their owners have.
type Outside struct {
	First time.Time `json:"first"` // use of the version
	Last  time.Time `json:"last"`
	// Wraps counts items that were wrapped, Unwraps those that were opened, or should
	// have been while the version waited for its destruction.
	Wraps   int64 `json:"wraps"`
	Unwraps int64 `json:"unwraps"`
	// Dismissed is when DismissedBy said that nothing needs them any more; absent
	// where nobody did, or where the version was used since.
	Dismissed   *time.Time `json:"dismissed,omitempty"`
	DismissedBy string     `json:"dismissed_by,omitempty"`
}

// Uses counts what was recorded: it grows with each use.
func (o *Outside) Uses() int64 { return o.Wraps + o.Unwraps }

// Census is what depends on the versions of a keyring.
type Census struct {
	Keyring string            `json:"keyring"`
	Current uint32            `json:"current"`
	Counts  []DependentsCount `json:"counts"`
	// Blockers are a page of what depends on the one version that was asked about.
	Blockers []Dependent `json:"blockers"`
	// Next is empty on the last page and else the value of after for the next one.
	Next string `json:"next,omitempty"`
}

// DependentsCount counts rows of one kind that a version opens.
type DependentsCount struct {
	Version uint32 `json:"version"`
	// Kind is secret, service-key or outside.
	Kind string `json:"kind"`
	// Purpose is that of secrets, such as luks-keyslot or recovery; of service keys
	// it is their kind.
	Purpose string `json:"purpose"`
	Status  string `json:"status,omitempty"`
	Count   int64  `json:"count"`
}

// Dependent is something that a keyring version opens.
type Dependent struct {
	Kind string `json:"kind"`
	// Object is volume/ID, service-key/KIND/ID or ciphertexts/outside.
	Object  string `json:"object"`
	Machine string `json:"machine,omitempty"` // id
	Purpose string `json:"purpose"`
	Version uint32 `json:"version,omitzero"` // of the secret
	Status  string `json:"status,omitempty"`
	// Outside is of ciphertexts outside.
	Outside *Outside `json:"outside,omitempty"`
}

// CreateKeyring is the body that makes a keyring.
type CreateKeyring struct {
	Name string `json:"name"`
}

// RotateKeyring is the body that makes the next version of a keyring.
type RotateKeyring struct {
	// From is the version that the operator saw as the current one. Where it is given
	// and another one is current by now, nothing is done.
	From uint32 `json:"from,omitempty"`
}

// DestroyKeyring is the body that schedules the destruction of a version.
type DestroyKeyring struct {
	// Days until it is destroyed, 7 to 30; absent is 30.
	Days int `json:"days,omitempty"`
}

// DismissOutside is the body that says that nothing outside needs a version.
type DismissOutside struct {
	// Reason goes into the audit log.
	Reason string `json:"reason"`
	// Uses are Wraps and Unwraps together that the operator saw. Where they are given
	// and there are others by now, nothing is dismissed.
	Uses int64 `json:"uses,omitempty"`
}

// ChangeKeyring is the empty body of a change of a version's state.
type ChangeKeyring struct{}

// RewrapKeyring is the body that rewraps a page of a keyring's secrets.
type RewrapKeyring struct {
	// After is Next of the page before.
	After string `json:"after,omitempty"`
	// Limit bounds the rows, 1 to 1000; absent is 100.
	Limit int `json:"limit,omitempty"`
}

// Rewrapped is what one page of a rewrap did.
type Rewrapped struct {
	Keyring string `json:"keyring"`
	// Current is the version that secrets were moved to.
	Current uint32 `json:"current"`
	Done    int    `json:"done"`
	// Changed counts what somebody else changed meanwhile: it is as it was, and is
	// found again by the next rewrap.
	Changed int `json:"changed"`
	// Failed are those that do not open; they stay as they are.
	Failed []RewrapFailure `json:"failed"`
	// Next is where the next page goes on; empty after the last.
	Next string `json:"next,omitempty"`
	// Remaining counts what is not on the current version.
	Remaining int64 `json:"remaining"`
	// RootCalls counts the versions of the keyring that a root had to open for it.
	RootCalls int `json:"root_calls"`
}

// RewrapFailure is something that does not open.
type RewrapFailure struct {
	Dependent
	// Keyring is the NAME@VERSION that should open it.
	Keyring string `json:"keyring"`
	Detail  string `json:"detail"`
}

// AssignKeyring is the body that has a keyring wrap a machine's secrets.
type AssignKeyring struct {
	Keyring string `json:"keyring"`
}

// AssignedKeyring is what moving a machine to a keyring did.
type AssignedKeyring struct {
	Machine Machine `json:"machine"`
	Keyring string  `json:"keyring"`
	// Volumes and Secrets count what was moved.
	Volumes int `json:"volumes"`
	Secrets int `json:"secrets"`
}

// AssignKeyring has a keyring wrap the secrets of a machine.
func (o *OperatorClient) AssignKeyring(ctx context.Context, machine, keyring string) (AssignedKeyring, error) {
	return post[AssignedKeyring](ctx, o.c, at(PathMachineKeyring, machine), AssignKeyring{Keyring: keyring})
}

// Keyrings returns a page of keyrings.
func (o *OperatorClient) Keyrings(ctx context.Context, q ListQuery) (Page[Keyring], error) {
	return get[Page[Keyring]](ctx, o.c, PathKeyrings, q.values())
}

// Keyring returns one keyring with its versions.
func (o *OperatorClient) Keyring(ctx context.Context, ref string) (Keyring, error) {
	return get[Keyring](ctx, o.c, at(PathKeyring, ref), nil)
}

// Census returns what depends on a keyring, or on one version of it, NAME@VERSION,
// with a page of what it is.
func (o *OperatorClient) Census(ctx context.Context, ref string, q ListQuery) (Census, error) {
	return get[Census](ctx, o.c, at(PathKeyringCensus, ref), q.values())
}

// CreateKeyring makes a keyring.
func (o *OperatorClient) CreateKeyring(ctx context.Context, name string) (KeyringVersion, error) {
	return post[KeyringVersion](ctx, o.c, PathKeyrings, CreateKeyring{Name: name})
}

// RotateKeyring makes the next version of a keyring.
func (o *OperatorClient) RotateKeyring(ctx context.Context, name string, from uint32) (KeyringVersion, error) {
	return post[KeyringVersion](ctx, o.c, at(PathKeyringRotate, name), RotateKeyring{From: from})
}

// RewrapKeyring rewraps a page of a keyring's secrets.
func (o *OperatorClient) RewrapKeyring(ctx context.Context, name string, r RewrapKeyring) (Rewrapped, error) {
	return post[Rewrapped](ctx, o.c, at(PathKeyringRewrap, name), r)
}

// EnableKeyring lets a disabled version, NAME@VERSION, wrap again.
func (o *OperatorClient) EnableKeyring(ctx context.Context, ref string) (KeyringVersion, error) {
	return post[KeyringVersion](ctx, o.c, at(PathKeyringEnable, ref), ChangeKeyring{})
}

// DisableKeyring has a version wrap nothing new.
func (o *OperatorClient) DisableKeyring(ctx context.Context, ref string) (KeyringVersion, error) {
	return post[KeyringVersion](ctx, o.c, at(PathKeyringDisable, ref), ChangeKeyring{})
}

// DestroyKeyring schedules the destruction of a version.
func (o *OperatorClient) DestroyKeyring(ctx context.Context, ref string, d DestroyKeyring) (KeyringVersion, error) {
	return post[KeyringVersion](ctx, o.c, at(PathKeyringDestroy, ref), d)
}

// DismissOutside says that nothing outside needs a version any more.
func (o *OperatorClient) DismissOutside(ctx context.Context, ref string, d DismissOutside) (KeyringVersion, error) {
	return post[KeyringVersion](ctx, o.c, at(PathKeyringDismiss, ref), d)
}

// CancelDestroy cancels the destruction of a version.
func (o *OperatorClient) CancelDestroy(ctx context.Context, ref string) (KeyringVersion, error) {
	return post[KeyringVersion](ctx, o.c, at(PathKeyringCancel, ref), ChangeKeyring{})
}
