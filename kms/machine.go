package kms

import (
	"time"

	"keywright.dev/kms/attest"
)

// MachineStatus is the state of a machine's enrolment.
type MachineStatus string

// The states. A machine gets keys only while it is active.
const (
	MachinePending MachineStatus = "pending"
	MachineActive  MachineStatus = "active"
	MachineRevoked MachineStatus = "revoked"
)

// DefaultGroup is the group of a machine for which no other was named.
const DefaultGroup = "default"

// Machine is one enrolled TPM and the operating system it boots.
type Machine struct {
	// ID is the hash of the EK's public area, 64 hex digits (package exchange).
	ID string
	// Name is unique among approved machines; empty while none was approved.
	Name string
	// Proposed is the name the machine asked for.
	Proposed string
	Group    string
	Status   MachineStatus
	// Committed tells that the enrolment's commit arrived: the keyslots are in
	// place.
	Committed bool

	EK     []byte // public area, as package exchange checks it
	EKCert []byte // DER; empty where the TPM holds none
	AK     []byte // public area
	AKName []byte // TPM Name, unique among machines
	// Trust says why the EK is believed: see attest.Trust.
	Trust string
	// Tier of the measured boot that was attested last (package attest).
	Tier string

	// Measurement is the digest of the measurement attested last, Expected that
	// of the one announced for the next boot, ExpectedPlatform that of its
	// platform set; zero before the enrolment was committed.
	Measurement      [32]byte
	Expected         [32]byte
	ExpectedPlatform [32]byte
	// Platform is the digest of the platform set of the last release, and Release
	// the id of that release; zero before the first.
	Platform [32]byte
	Release  [32]byte
	// Floors tell which measurements its last good boots had, the newest first: each
	// is when the one was approved that was approved first of that boot's and of those
	// after it. At most [MaxRetireAfter] are kept.
	Floors []time.Time
	// Pins are the fingerprints of the service identity keys that its last boot pinned,
	// before one its enrolment; the first is the one that it asked for.
	Pins [][32]byte
	// Opened are the ids of the volumes that the last release was for.
	Opened []string
	// Announced is when the machine last announced its next boots, zero before it
	// did. Fault is why the first of them would open no volumes whatever is
	// approved, or with Unforeseen why nothing is known of it; empty where neither
	// is the case.
	Announced  time.Time
	Fault      string
	Unforeseen bool

	// Counters of the last quote that was accepted as evidence: those of later
	// quotes may not be behind them, unless an operator lets them.
	Counters Counters
	// Regressed tells that the machine was refused because its counters went
	// back, and had no release since.
	Regressed bool
	// ReadmitUntil is until when the next release sets new counters, RestoreUntil
	// until when one release may have counters that went back, ReenrollUntil until
	// when the machine may enrol again; zero where no operator said so, or it was
	// used up.
	ReadmitUntil  time.Time
	RestoreUntil  time.Time
	ReenrollUntil time.Time
	// Releases are the TPM clock values, in milliseconds, of the releases since
	// Counters.ResetCount last moved; at most as many as the limit counts.
	Releases []uint64

	Created     time.Time
	Approved    time.Time // zero until approved
	ApprovedBy  string
	LastRelease time.Time // zero until the first
	LastRefusal time.Time // zero until the first
}

// Counters are the TPM's counters in a quote; see attest.Counters.
type Counters = attest.Counters

// VolumeStatus is the state of a volume.
type VolumeStatus string

// The states: a volume is released once its enrolment was committed, and no more
// once its machine enrolled again.
const (
	VolumePending VolumeStatus = "pending"
	VolumeActive  VolumeStatus = "active"
	// VolumeFormer is no longer of its machine. It is kept: the machine had its
	// secret.
	VolumeFormer VolumeStatus = "former"
)

// Volume is one LUKS2 volume of a machine.
type Volume struct {
	ID      string // 32 hex digits
	Machine string // machine id
	UUID    string // of the LUKS header, unique among the machine's that are not former
	Status  VolumeStatus
	// Identity is the identity digest of the header; empty until committed.
	Identity []byte
	// VolumeKeyDigest is the digest of the volume key that the header holds;
	// the same one on two machines means a copied disk.
	VolumeKeyDigest []byte
	// Inventory is the JSON of the header's slots and tokens as last reported.
	Inventory []byte
	// Size is that of the data in bytes, as in Inventory, which plans of a million
	// volumes do not read; 0 where nobody reported one.
	Size uint64
	// Accepted are the marks, of [itemMark] bytes each, of the slots and tokens that
	// were reported at the commit, or that an operator accepted.
	Accepted []byte
	// Foreign tells that Inventory holds a slot or token that is not accepted,
	// Copied that another machine has a volume with this volume key and nobody
	// accepted that.
	Foreign bool
	Copied  bool
	// Resume is the id that an interrupted enrolment shows; empty once the machine
	// is approved or, of a volume that was added later, released to a boot.
	Resume  []byte
	Keyring string
	Created time.Time
	// Reencrypted is when the data last came under a new volume key; zero if never.
	Reencrypted time.Time
}

// SecretStatus is the state of one version of a volume's secret.
type SecretStatus string

// The states of a secret version.
const (
	SecretPending SecretStatus = "pending"
	SecretCurrent SecretStatus = "current"
	// SecretRestoreOnly is that of what a rekey replaced: it opens images of the
	// disk from before.
	SecretRestoreOnly SecretStatus = "restore-only"
)

// The purposes of secrets.
const (
	// PurposeKeyslot is that of the secret that attested boots are released.
	PurposeKeyslot = "luks-keyslot"
	// PurposeRecovery is that of a recovery key, for people.
	PurposeRecovery = "recovery"
	// PurposeHeader is that of the key that the copy of a header is sealed under,
	// from before a rekey; of the version that the rekey makes.
	PurposeHeader = "luks-header"
)

// Secret is one version of what opens a volume's keyslot, or the copy of its
// header, wrapped.
type Secret struct {
	Volume         string // volume id
	Purpose        string
	Version        uint32 // from 1, of this volume and purpose
	Status         SecretStatus
	Keyring        string
	KeyringVersion uint32
	Wrapped        string // package envelope
	Created        time.Time
	// Replaced is when another one took its place; zero until then.
	Replaced time.Time
	// AtBoot tells that boots alone were given it, and never a running system.
	AtBoot bool
	// Disclosed is when an operator last had a recovery key shown; zero until then.
	Disclosed time.Time
	// AgeCopy is a recovery key encrypted to people, in age's armor; empty where
	// none were named when it was made.
	AgeCopy string
}

// MeasurementStatus is the state of a measurement in one group.
type MeasurementStatus string

// The states: a seen measurement waits for an operator.
const (
	MeasurementSeen     MeasurementStatus = "seen"
	MeasurementApproved MeasurementStatus = "approved"
	// MeasurementRetired is that of one that newer ones took the place of.
	MeasurementRetired MeasurementStatus = "retired"
)

// MeasurementSource says how the service came to know a measurement.
type MeasurementSource string

// The sources.
const (
	// SourceAttested is a boot that happened.
	SourceAttested MeasurementSource = "attested"
	// SourcePredicted was computed from the files of a boot to come, laid over
	// an attested one.
	SourcePredicted MeasurementSource = "predicted"
	// SourceOperator was computed and submitted by an operator.
	SourceOperator MeasurementSource = "operator"
)

// Measurement is a set of boot claims, and whether a group's machines may boot
// with it.
type Measurement struct {
	Digest [32]byte // of Claims
	Group  string
	Claims []byte // canonical form, package claims
	// CommandLine is the kernel command line whose digest the claims hold; empty
	// where nobody told it.
	CommandLine string
	Status      MeasurementStatus
	Source      MeasurementSource
	// Machine is the id of the machine it was first seen on or predicted for.
	Machine    string
	Created    time.Time
	Approved   time.Time // zero until approved
	ApprovedBy string
}

// Platform is a set of claims that names one machine: approved for it alone.
type Platform struct {
	Machine  string
	Digest   [32]byte
	Claims   []byte
	Approved bool
	Created  time.Time
	// Expires is when the approval ends of a set that the machine staged itself;
	// zero for one that an operator approved.
	Expires time.Time
}

// approvedFor tells whether the machine may boot with the set. What it booted
// last with its keys does not expire.
func (p *Platform) approvedFor(m *Machine, now time.Time) bool {
	return p != nil && p.Approved && (p.Expires.IsZero() || now.Before(p.Expires) || p.Digest == m.Platform)
}
