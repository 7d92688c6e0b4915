package kms

import "time"

// SystemKeyring wraps the service's own keys.
const SystemKeyring = "system"

// DefaultKeyring wraps the secrets of volumes for which no other was named.
const DefaultKeyring = "default"

// DefaultTenant is the tenant of everything until there are tenants.
const DefaultTenant = "default"

// KeyringStatus is the state of a keyring version.
type KeyringStatus string

// The states. New secrets are wrapped with the newest enabled version, which is
// the current one.
const (
	KeyringEnabled KeyringStatus = "enabled"
	// KeyringDisabled wraps nothing new, and still opens what it wrapped.
	KeyringDisabled KeyringStatus = "disabled"
	// KeyringScheduled waits for its destruction: it opens nothing, and nothing
	// depends on it.
	KeyringScheduled KeyringStatus = "destroy-scheduled"
	// KeyringDestroyed is a tombstone: the wrappers are gone, and the key with them.
	KeyringDestroyed KeyringStatus = "destroyed"
)

// opens tells whether a version in this state is used at all.
func (s KeyringStatus) opens() bool { return s == KeyringEnabled || s == KeyringDisabled }

// KeyringVersion is one AES-256 key of a keyring, wrapped by roots of trust.
type KeyringVersion struct {
	Keyring string
	Version uint32 // from 1
	Status  KeyringStatus
	Created time.Time
	// Changed is when it came into its state, ChangedBy who brought it there: kind
	// and id of the actor, as the audit log has them; empty of the versions that
	// the service made itself.
	Changed   time.Time
	ChangedBy string
	// DestroyAt is when a scheduled version is to be destroyed, else zero.
	DestroyAt time.Time
	// Wrappers hold the same key, each under another root; any one opens it.
	Wrappers []Wrapper
}

// Wrapper is a keyring version's key under one root of trust.
type Wrapper struct {
	Root    string // the root's URI
	Version string // of the root's key; empty where that has none
	Wrapped []byte // opaque to all but the root
}

// VersionWrapper is a wrapper with the keyring version that it is of.
type VersionWrapper struct {
	Keyring string
	Version uint32
	Wrapper Wrapper
}

// ServiceKeyKind says what one of the service's own keys is for.
type ServiceKeyKind string

// The kinds.
const (
	ServiceKeyCA        ServiceKeyKind = "ca"
	ServiceKeyIdentity  ServiceKeyKind = "identity"
	ServiceKeyChallenge ServiceKeyKind = "challenge"
	ServiceKeyLog       ServiceKeyKind = "log"
)

// ServiceKey is one of the service's own keys, wrapped by the system keyring.
type ServiceKey struct {
	Kind ServiceKeyKind
	ID   string // unique within the kind
	// Public is what may be shown: a certificate or a SubjectPublicKeyInfo;
	// empty for a MAC key.
	Public []byte
	// KeyringVersion is the version of the system keyring that opens it.
	KeyringVersion uint32
	Wrapped        string // package envelope
	Created        time.Time
}
