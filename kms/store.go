package kms

import (
	"context"
	"time"

	"keywright.dev/kms/audit"
)

// Transactor is the store as changes see it.
type Transactor interface {
	// Transact reads the rows that key names, passes them to decide, and writes
	// what decide returns, all in one serializable transaction; rows named by
	// key conflict with every other transaction that names them. It returns
	// once the outcome is durable.
	//
	// An error of decide changes nothing and is returned as it is. decide is
	// pure and may run more than once.
	Transact(ctx context.Context, key Key, decide func(State) (Outcome, error)) error
}

// Key names the rows that a decision depends on. Zero fields name nothing.
type Key struct {
	// Machine loads the machine, its volumes, the secrets of their keyslots and those
	// that copies of their headers are sealed under.
	Machine string
	// Recovery loads the volumes' recovery keys as well.
	Recovery bool
	// AKName loads the id of the machine that holds this AK.
	AKName []byte
	// Name loads the id of the machine that holds this name.
	Name string
	// Challenge loads whether this challenge was redeemed.
	Challenge *[32]byte
	// Measurements load the measurements of these digests in Group; with an
	// empty Group, in the machine's.
	Measurements [][32]byte
	Group        string
	// Platform loads the machine's platform set of this digest.
	Platform *[32]byte
	// VolumeKeys load volumes of other machines whose headers hold one of these
	// digests: at most [MaxSameKey] for each.
	VolumeKeys [][]byte
	// Keyrings loads all keyring versions with their wrappers.
	Keyrings bool
	// Announced loads all platform sets of the machine, and the measurements that
	// were predicted for it and wait for an operator.
	Announced bool
	// Keyring loads the versions of a keyring, without their wrappers, what depends
	// on each, and their uses.
	Keyring string
	// ServiceKeys loads the service's own keys.
	ServiceKeys bool
	// Leader loads who leads by this name.
	Leader string
	// Term has the transaction refused, as [ErrDeposed], where somebody else leads by
	// now.
	Term *Term
	// Pause loads whether rotations are held, Run the run of this id.
	Pause bool
	Run   string
	// Hold loads what keeps a measurement from being retired.
	Hold *Hold
	// Lacking loads which machines do not pin a service identity key.
	Lacking *Lacking
}

// SecretRef names a secret.
type SecretRef struct {
	Volume  string
	Purpose string
	Version uint32
}

// MaxSameKey bounds the volumes with one volume key that are looked at: every one
// beyond the first is found when it is committed.
const MaxSameKey = 16

// State is what a decision sees: the rows named by the [Key]. What decide gets
// is its own copy.
type State struct {
	Machine *Machine // nil where there is none
	Volumes []Volume // of the machine, ordered by id
	Secrets []Secret // of the volumes, ordered by volume, purpose and version

	AKHolder   string // machine id; empty where nobody holds the AK
	NameHolder string // machine id; empty where the name is free
	Redeemed   bool

	SameKey []Volume // of other machines, by digest in the key's order, then id

	Measurements []Measurement    // those of the key that exist
	Platform     *Platform        // nil where there is none
	Platforms    []Platform       // where the key asks for what is announced
	Predicted    []Measurement    // likewise
	Keyrings     []KeyringVersion // where the key asks for them, ordered by keyring and version
	// LeaseEpoch counts how often all leases were dropped; it is always loaded.
	LeaseEpoch uint64
	// SeenPlatforms and SeenMeasurements count what is kept for the machine and
	// waits for an operator, so that a decision can bound them.
	SeenPlatforms    int
	SeenMeasurements int

	Keyring     []KeyringVersion // ordered by version
	Dependents  []Dependents     // on versions of the keyring, ordered as they are
	Uses        []KeyringUse     // of versions of the keyring, ordered by version
	ServiceKeys []ServiceKey     // ordered by kind and creation
	Orders      []Order          // of the machine, ordered by volume

	Leader  *Leadership    // nil where there never was one
	Pause   *RotationPause // nil where rotations are not held
	Run     *RotationRun   // nil where there is none
	Holding Holding        // where the key asks for it
	Lacking []string       // likewise: ids of machines, ordered
}

// Outcome is what a decision wants written. Rows replace those of the same key. A
// secret, a service key or a use that wrapped, under a keyring version that is
// neither enabled nor disabled, or that is not there, is an error that is
// [ErrRetired].
type Outcome struct {
	// Redeem enters a challenge as redeemed. That it was redeemed before is an
	// error of the store even where decide overlooks it.
	Redeem *Redemption
	// DropMachine deletes the machine of this id with its volumes and their
	// secrets, its platform sets and the measurements that were seen first on it
	// and are not approved; before rows are written. That there is none is no
	// error. Its entries in the audit log stay.
	DropMachine string
	// DropVolumes deletes volumes, by id, with their secrets; before Volumes
	// and Secrets are written.
	DropVolumes []string
	// DropPlatforms deletes platform sets of Machine by their digests, and
	// DropMeasurements measurements by their digests and groups; before rows are
	// written. That there is none is no error.
	DropPlatforms    [][32]byte
	DropMeasurements []Measurement

	// DropWrappers deletes wrappers of keyring versions, by version and root;
	// before Wrappers are written. That there is none is no error.
	DropWrappers []VersionWrapper
	Wrappers     []VersionWrapper
	// DropLeases ends the leases of all replicas, by the next epoch.
	DropLeases bool

	Machine      *Machine
	Volumes      []Volume
	Secrets      []Secret
	Measurements []Measurement
	Platforms    []Platform
	// NewKeyrings are versions that are added with their wrappers. That one exists
	// already is an error that is [ErrExists].
	NewKeyrings []KeyringVersion
	// Keyrings are versions that exist, with another state; wrappers stay as they
	// are, and are deleted of one that is destroyed.
	Keyrings []KeyringVersion
	// Orders are added, or replace those of the same volumes. That there is no such
	// volume is an error that is [ErrNotFound].
	Orders []Order
	// DropOrders deletes the orders of volumes, by their ids.
	DropOrders []string
	// DropSecrets deletes secrets, before others are written.
	DropSecrets []SecretRef
	// HeaderCopy is kept with the secret that it is sealed under. That there is none
	// is an error that is [ErrNotFound].
	HeaderCopy *HeaderCopy
	// Moved are secrets that exist, with another wrapping. That one has not the
	// wrapping any more that it was read with is an error that is [ErrChanged].
	Moved []MovedSecret
	// ServiceKeys are keys that exist, with another wrapping.
	ServiceKeys []ServiceKey
	// NewServiceKeys are added. DropServiceKeys are deleted, before.
	NewServiceKeys  []ServiceKey
	DropServiceKeys []ServiceKey
	// Uses are added to those of the same version: the first time stays, the last one
	// moves on, counts add up. That they were dismissed is void then.
	Uses []KeyringUse
	// Dismissed are uses that exist, with who dismissed them; nothing else of them
	// changes.
	Dismissed []KeyringUse
	// Leader is who leads from now on.
	Leader *Leadership
	// Pause holds rotations, Resume ends that.
	Pause  *RotationPause
	Resume bool
	// Run is added, or replaces what is known of how it ended; the oldest beyond
	// [MaxRotationRuns] are deleted.
	Run *RotationRun
	// Entries are appended to the audit log, in this order.
	Entries []LogEntry
}

// Redemption keeps a challenge from being used again until it cannot be valid.
type Redemption struct {
	Challenge [32]byte
	KeepUntil time.Time
}

// LogEntry is a signed audit entry and what it can be found by.
type LogEntry struct {
	Signed audit.Signed
	// Machine is the id of the machine that the entry is about; may be empty.
	Machine string
	Action  string
	Time    time.Time
}

// ServiceKeys is the store as the service's own keys see it.
type ServiceKeys interface {
	// Keyrings returns all keyring versions, ordered by keyring and version.
	Keyrings(ctx context.Context) ([]KeyringVersion, error)
	// LeaseEpoch counts how often all leases were dropped.
	LeaseEpoch(ctx context.Context) (uint64, error)
	// ServiceKeys returns all service keys, ordered by kind and creation.
	ServiceKeys(ctx context.Context) ([]ServiceKey, error)
	// AddKeys adds versions and keys and deletes the service keys named by drop,
	// in one transaction. What exists already is an error that is [ErrExists].
	AddKeys(ctx context.Context, versions []KeyringVersion, keys []ServiceKey, drop []ServiceKey) error
}

// Sequencer is the store as the audit log's tree sees it.
type Sequencer interface {
	// Sequence passes at most limit entries that are not in the tree yet, in the
	// order of their insertion, to build, with the last head (empty before the
	// first) and the hashes stored so far, and stores in the same transaction
	// what build returns. It returns how many entries it passed; with none,
	// build is not called.
	Sequence(ctx context.Context, limit int, build func(head []byte, hashes audit.HashReader, leaves []audit.Hash) (Sequenced, error)) (int, error)
}

// Sequenced is what extends the audit log's tree.
type Sequenced struct {
	Appended audit.Appended
	Head     []byte // signed note
}

// Reader is the store as queries see it. A query sees what was committed
// before it began. Lists are ordered by their key and continue after the one
// named by after, which is empty for the first page.
type Reader interface {
	// Machine finds a machine by id; [ErrNotFound].
	Machine(ctx context.Context, id string) (*Machine, error)
	// FindMachines returns the machines whose name is ref, whose proposed name
	// is ref while they have no name, or whose id begins with ref; at most limit.
	FindMachines(ctx context.Context, ref string, limit int) ([]Machine, error)
	Machines(ctx context.Context, filter MachineFilter, after string, limit int) ([]Machine, error)
	// FindVolumes returns the volumes whose id begins with ref, ordered by id, and
	// those that are not former with this UUID; at most limit.
	FindVolumes(ctx context.Context, ref string, limit int) ([]Volume, error)
	// Volumes returns the volumes of a machine, or of all with an empty id.
	Volumes(ctx context.Context, machine, after string, limit int) ([]Volume, error)
	// AlarmedVolumes returns the volumes with an open alarm of a kind.
	AlarmedVolumes(ctx context.Context, alarm Alarm, after string, limit int) ([]Volume, error)
	// SameKey returns the volumes of other machines whose headers hold this digest
	// of a volume key, ordered by id; at most limit.
	SameKey(ctx context.Context, digest []byte, machine string, limit int) ([]Volume, error)
	// Orders returns the orders of volumes whose ids are above after, ordered by
	// them; at most limit.
	Orders(ctx context.Context, after string, limit int) ([]Order, error)
	// OrdersOf returns those of a machine, ordered by volume.
	OrdersOf(ctx context.Context, machine string) ([]Order, error)
	// VolumeKeys returns the volumes of all machines whose ids are above after,
	// ordered by them, with what is known of their secrets; at most limit. What a
	// keyring version ever wrapped stays known until the volume is dropped: the store
	// notes it with every change of a secret.
	VolumeKeys(ctx context.Context, after string, limit int) ([]VolumeKeys, error)
	// HeaderCopy returns the copy of a volume's header; [ErrNotFound].
	HeaderCopy(ctx context.Context, volume string) (*HeaderCopy, error)
	// VolumeKeysOf returns those of the volumes with these ids that there are.
	VolumeKeysOf(ctx context.Context, ids []string) ([]VolumeKeys, error)
	// VolumesToPlan returns the ids of volumes that which names, in no order and some
	// of them repeatedly; at most limit.
	VolumesToPlan(ctx context.Context, which ToPlan, limit int) (ids []string, err error)
	// Secrets returns the secrets of a volume, ordered by purpose and version.
	Secrets(ctx context.Context, volume string) ([]Secret, error)
	// Measurements returns those of a group, or of all with an empty name,
	// ordered by digest and group; after is the hex digest last seen, and a page
	// never ends between two groups of one digest.
	Measurements(ctx context.Context, group, after string, limit int) ([]Measurement, error)
	// ApprovedMeasurements returns the approved ones of a group, those that were
	// entered last first; at most limit.
	ApprovedMeasurements(ctx context.Context, group string, limit int) ([]Measurement, error)
	// MeasurementGroups returns the groups that have approved measurements, ordered.
	MeasurementGroups(ctx context.Context) ([]string, error)
	// OldestApproved returns the approved ones of a group, those that were approved
	// first first; at most limit.
	OldestApproved(ctx context.Context, group string, limit int) ([]Measurement, error)
	// Holding returns what keeps a measurement from being retired.
	Holding(ctx context.Context, h Hold) (Holding, error)
	// PinCounts counts the active machines by the service identity keys that they pin.
	PinCounts(ctx context.Context) ([]PinCount, error)
	// MachinesLacking returns the ids of active machines that do not pin a service
	// identity key, above after, ordered.
	MachinesLacking(ctx context.Context, l Lacking, after string) ([]string, error)
	// FindMeasurements returns those whose hex digest begins with ref.
	FindMeasurements(ctx context.Context, ref string, limit int) ([]Measurement, error)
	// Announcements returns what is approved of the boots that machines announced,
	// in their order.
	Announcements(ctx context.Context, machines []Machine) ([]Announcement, error)
	// Platforms returns the platform sets of a machine, newest first.
	Platforms(ctx context.Context, machine string) ([]Platform, error)
	// Dependents counts what depends on the versions of a keyring, or of all with an
	// empty name; ordered by keyring, version, kind, purpose and status. What nothing
	// depends on is not in it.
	Dependents(ctx context.Context, keyring string) ([]Dependents, error)
	// KeyringUses returns all uses of keyring versions, ordered by keyring and version.
	KeyringUses(ctx context.Context) ([]KeyringUse, error)
	// SecretsOn returns the secrets that a version of a keyring opens, ordered by
	// volume, purpose and version, with what they are bound to.
	SecretsOn(ctx context.Context, keyring string, version uint32, after SecretRef, limit int) ([]BoundSecret, error)
	// Counts summarises the store.
	Counts(ctx context.Context) (Counts, error)
	// RotationPause returns why rotations are held; nil where they are not.
	RotationPause(ctx context.Context) (*RotationPause, error)
	// RotationRuns returns runs of rotations, newest first; at most limit.
	RotationRuns(ctx context.Context, limit int) ([]RotationRun, error)
}

// Dependents counts the rows of one kind that a keyring version opens.
type Dependents struct {
	Keyring string
	Version uint32
	Kind    DependentKind
	Purpose string // of secrets; of service keys their kind
	Status  string // of secrets
	Count   int64
}

// DependentKind is a kind of row that depends on a keyring version.
type DependentKind string

// The kinds.
const (
	DependentSecret     DependentKind = "secret"
	DependentServiceKey DependentKind = "service-key"
	// DependentOutside stands for what the key API wrapped, of which there is no
	// row: one for a version that served it, until that is dismissed.
	DependentOutside DependentKind = "outside"
)

// BoundSecret is a secret with what its machine's row says of whom it is bound to.
type BoundSecret struct {
	Secret
	Machine string // id
	EK, AK  []byte // public areas
}

// Ref names the secret.
func (s *Secret) Ref() SecretRef {
	return SecretRef{Volume: s.Volume, Purpose: s.Purpose, Version: s.Version}
}

// MovedSecret is a secret under another wrapping of the same contents; the rest of
// its row stays.
type MovedSecret struct {
	SecretRef
	Was            string // its wrapping when it was read
	Keyring        string
	KeyringVersion uint32
	Wrapped        string
}

// Announcement is what the store knows of the boot that a machine announced.
type Announcement struct {
	// Measurement is the status of Machine.Expected in the machine's group; empty
	// where it is not known there.
	Measurement MeasurementStatus
	// Platform is Machine.ExpectedPlatform without its claims; nil where it is not
	// known.
	Platform *Platform
}

// MachineFilter selects machines; empty fields select all.
type MachineFilter struct {
	Status MachineStatus
	Group  string
}

// Counts summarises a store.
type Counts struct {
	Machines     map[MachineStatus]int64
	Volumes      int64
	Secrets      int64
	Measurements map[MeasurementStatus]int64
	Alarms       map[Alarm]int64 // that are open
	Entries      int64           // in the audit log
	// LastSecret is when what opens a volume last changed: by an enrolment, a rekey or a
	// reencryption.
	LastSecret time.Time
	Sequenced  int64 // of these, in the tree
}

// LogReader is the store as readers of the audit log see it.
type LogReader interface {
	// Head returns the last signed head and the size of its tree; an empty head
	// before the first.
	Head(ctx context.Context) (head []byte, size int64, err error)
	// SequencedEntries calls each with the signed entries of the tree from index
	// from to before index to, in order.
	SequencedEntries(ctx context.Context, from, to int64, each func(index int64, signed []byte, leaf audit.Hash) error) error
	// LatestEntries returns the newest entries, newest first, with what they can
	// be found by: of a machine where machine is not empty, of one action where
	// action is not. Index is -1 for one that is not in the tree yet.
	LatestEntries(ctx context.Context, machine, action string, limit int) ([]FoundEntry, error)
	// TreeHashes reads the stored hashes of the tree.
	TreeHashes(ctx context.Context) audit.HashReader
}

// FoundEntry is an entry of the audit log with its place in the tree.
type FoundEntry struct {
	Index  int64 // leaf index, or -1
	Signed []byte
}
