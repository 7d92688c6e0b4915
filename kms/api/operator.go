package api

import "time"

// Page continues a list: Next is empty on the last page and else the value of
// the query parameter "after" for the next one.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Machine is an enrolled machine as operators see it.
type Machine struct {
	ID          string     `json:"id"`
	Name        string     `json:"name,omitempty"`
	Proposed    string     `json:"proposed_name,omitempty"`
	Group       string     `json:"group"`
	Status      string     `json:"status"`
	Committed   bool       `json:"committed"`
	EKHash      string     `json:"ek_hash"`
	EKTrust     string     `json:"ek_trust"`
	Tier        string     `json:"tier"`
	ResetCount  uint32     `json:"reset_count"`
	Created     time.Time  `json:"created"`
	Approved    *time.Time `json:"approved,omitempty"`
	ApprovedBy  string     `json:"approved_by,omitempty"`
	LastRelease *time.Time `json:"last_release,omitempty"`
	LastRefusal *time.Time `json:"last_refusal,omitempty"`
	// NextBoot is in lists and details of machines.
	NextBoot *NextBoot `json:"next_boot,omitempty"`
}

// NextBoot is what is to be expected of a machine's next boot.
type NextBoot struct {
	// Verdict is yes, no or unknown; Code and Detail say why not yes.
	Verdict string `json:"verdict"`
	Code    Code   `json:"code,omitempty"`
	Detail  string `json:"detail,omitempty"`
	// Announced is when the machine last announced its boots from a running system.
	Announced *time.Time `json:"announced,omitempty"`
}

// MachineDetails is a machine with what belongs to it.
type MachineDetails struct {
	Machine
	Volumes []Volume `json:"volumes"`
	// Measurements are those first seen on, or predicted for, this machine.
	Measurements []Measurement `json:"measurements"`
	// Attested is the digest of the measurement that it attested last.
	Attested string `json:"attested,omitempty"`
	// Expected and ExpectedPlatform are the digests announced for its next boot:
	// what an approval approves.
	Expected         string `json:"expected,omitempty"`
	ExpectedPlatform string `json:"expected_platform,omitempty"`
	// Findings are the claims of these two that a person should look at before
	// approving them.
	Findings []Claim `json:"findings,omitempty"`
	// Grants are what an operator lets the machine do for a time.
	Grants
	// Alarms are the kinds of its open alarms, its volumes' included.
	Alarms []string `json:"alarms,omitempty"`
	// Revoked, RevokedBy and RevokedReason are of a machine that is revoked.
	Revoked       *time.Time `json:"revoked,omitempty"`
	RevokedBy     string     `json:"revoked_by,omitempty"`
	RevokedReason string     `json:"revoked_reason,omitempty"`
}

// Grants are what an operator lets a machine do for a time. What is over, or used
// up, is absent.
type Grants struct {
	// ReadmitUntil is until when the next release sets new counters, whatever
	// they are.
	ReadmitUntil *time.Time `json:"readmit_until,omitempty"`
	// RestoreUntil is until when one release may have counters that went back.
	RestoreUntil *time.Time `json:"restore_until,omitempty"`
	// ReenrollUntil is until when the machine may enrol again with the same TPM.
	ReenrollUntil *time.Time `json:"reenroll_until,omitempty"`
}

// ReadmitMachine is the body that lets a machine in again.
type ReadmitMachine struct {
	// Reason goes into the audit log.
	Reason string `json:"reason,omitempty"`
	// Reenroll lets it enrol again with the same TPM, and nothing else.
	Reenroll bool `json:"reenroll,omitempty"`
}

// ExpectRestore is the body that announces the restore of a machine.
type ExpectRestore struct {
	// Until is at most 7 days ahead.
	Until time.Time `json:"until"`
	// Reason goes into the audit log.
	Reason string `json:"reason,omitempty"`
}

// GrantedMachine is a machine with what it may do for a time.
type GrantedMachine struct {
	Machine
	Grants
}

// ApproveMachine is the body of an approval.
type ApproveMachine struct {
	// Name becomes the machine's unique name; empty takes the proposed one.
	Name string `json:"name,omitempty"`
	// Group defaults to "default".
	Group string `json:"group,omitempty"`
	// EKHash is what the operator read from the hypervisor, hex. Required where
	// neither a CA nor an inventory vouches for the EK.
	EKHash string `json:"ek_hash,omitempty"`
	// Measurement is the digest of the boot to approve; empty approves the one
	// announced for the machine's next boot.
	Measurement string `json:"measurement,omitempty"`
	// Platform is the digest of the platform set to approve; empty approves the
	// one of the enrolment.
	Platform string `json:"platform,omitempty"`
	// AnnouncedMeasurement and AnnouncedPlatform are the digests that the operator
	// saw as expected and expected_platform. Where one is given and another is
	// announced by now, nothing is approved.
	AnnouncedMeasurement string `json:"announced_measurement,omitempty"`
	AnnouncedPlatform    string `json:"announced_platform,omitempty"`
	// AllowUnmeasured approves a boot of tier identity: any system on the machine
	// gets the keys then. A policy must allow it as well.
	AllowUnmeasured bool `json:"allow_unmeasured,omitempty"`
}

// ApprovedMachine is the answer to an approval: the machine, and the digests that
// were approved with it.
type ApprovedMachine struct {
	Machine
	ApprovedMeasurement string `json:"approved_measurement"`
	ApprovedPlatform    string `json:"approved_platform"`
}

// RenameMachine is the body of a rename.
type RenameMachine struct {
	Name string `json:"name"`
}

// Revoke is the body of a revocation.
type Revoke struct {
	// Reason goes into the audit log.
	Reason string `json:"reason,omitempty"`
}

// Revoked reports a revocation and what the revoked thing still opens.
type Revoked struct {
	Machine Machine `json:"machine"`
	// StillOpens are the volumes whose secrets the machine may have kept, from its
	// enrolment or from earlier releases.
	StillOpens []Volume `json:"still_opens"`
}

// Volume is a LUKS volume as operators see it.
type Volume struct {
	ID       string          `json:"id"`
	Machine  string          `json:"machine"`
	UUID     string          `json:"uuid"`
	Status   string          `json:"status"`
	Identity string          `json:"identity,omitempty"` // hex
	Keyring  string          `json:"keyring"`
	Created  time.Time       `json:"created"`
	Secrets  []SecretVersion `json:"secrets,omitempty"`
	// Order is its rekey or reencryption that is under way.
	Order *Order `json:"order,omitempty"`
	// Report is what the guest last reported of the header.
	Report *VolumeReport `json:"report,omitempty"`
	// Alarms are the kinds of its open alarms: foreign, copied.
	Alarms []string `json:"alarms,omitempty"`
	// Foreign are the slots and tokens of the report that nobody accepted.
	Foreign []Claim `json:"foreign,omitempty"`
	// SameKey are volumes of other machines whose headers hold the same volume
	// key: one disk is a copy of the other. At most 16 are listed.
	SameKey []VolumeRef `json:"same_key,omitempty"`
}

// VolumeRef names a volume and its machine.
type VolumeRef struct {
	ID      string `json:"id"`
	Machine string `json:"machine"` // id
	// Name is the machine's, where it has one.
	Name   string `json:"name,omitempty"`
	Status string `json:"status"` // of the volume
}

// AcceptVolume is the body that accepts what a volume reported last.
type AcceptVolume struct {
	// Copied accepts that other machines have the same volume key.
	Copied bool `json:"copied,omitempty"`
	// Inventory is the digest in the report that the operator saw. Where it is
	// given and another header is reported by now, nothing is accepted.
	Inventory string `json:"inventory,omitempty"`
	// Reason goes into the audit log.
	Reason string `json:"reason,omitempty"`
}

// VolumeReport is what a guest reports of a LUKS header beside its identity.
type VolumeReport struct {
	// Digest names the report.
	Digest string `json:"digest"`
	// VolumeKeyDigest is hex: equal on two machines, it means a copied disk.
	VolumeKeyDigest string `json:"volume_key_digest,omitempty"`
	// Sequence counts the changes of the header.
	Sequence uint64 `json:"sequence"`
	// Size is that of the data, in bytes.
	Size   uint64      `json:"size"`
	Slots  []LUKSSlot  `json:"slots"`
	Tokens []LUKSToken `json:"tokens"`
}

// LUKSSlot is a keyslot of a LUKS2 header.
type LUKSSlot struct {
	ID       int    `json:"id"`
	KDF      string `json:"kdf"`
	Priority int    `json:"priority"`
	// Mark differs for every keyslot that was made, be its number the same.
	Mark string `json:"mark,omitempty"`
}

// LUKSToken is a token of a LUKS2 header.
type LUKSToken struct {
	ID    int    `json:"id"`
	Type  string `json:"type"`
	Slots []int  `json:"slots"`
	// Volume is the volume id in a token of ours.
	Volume string `json:"volume,omitempty"`
	// Purpose is that of a token of ours: recovery, or empty for boots.
	Purpose string `json:"purpose,omitempty"`
	// Version is that of the secret that a token of ours is about.
	Version uint32 `json:"version,omitempty"`
	// Announced is the keyslot that a token of ours is meant for before it is
	// assigned to one.
	Announced []int `json:"announced,omitempty"`
}

// SecretVersion is a version of a volume's secret, without the secret.
type SecretVersion struct {
	// Purpose is luks-keyslot for what boots get, and recovery for a recovery key.
	Purpose        string    `json:"purpose"`
	Version        uint32    `json:"version"`
	Status         string    `json:"status"`
	KeyringVersion uint32    `json:"keyring_version"`
	Created        time.Time `json:"created"`
	// AgeCopy tells that a recovery key was encrypted to people as well.
	AgeCopy bool `json:"age_copy,omitzero"`
	// Disclosed is when a recovery key was shown last; absent if never.
	Disclosed *time.Time `json:"disclosed,omitempty"`
}

// DiscloseRecoveryKey is the body that asks for a recovery key. The answer is
// [Sealed] to it, bound to the volume as the path names it.
type DiscloseRecoveryKey struct {
	Recipient []byte `json:"recipient"` // the caller's ephemeral HPKE key
	// Version is that of the key, such as of a restore-only one; 0 or absent is the
	// current one's.
	Version uint32 `json:"version,omitempty"`
}

// RecoveryCopy is a volume's recovery key, encrypted with age to the recipients
// that were configured when it was made.
type RecoveryCopy struct {
	Volume  string    `json:"volume"`
	Machine string    `json:"machine"`
	UUID    string    `json:"uuid"` // of the LUKS header
	Version uint32    `json:"version"`
	Created time.Time `json:"created"`
	// Age is the encrypted file in age's armor; its plaintext is the key alone.
	Age string `json:"age"`
}

// Measurement is a set of boot claims in one group.
type Measurement struct {
	ID         string     `json:"id"` // hex digest
	Group      string     `json:"group"`
	Status     string     `json:"status"`
	Source     string     `json:"source"`
	Machine    string     `json:"machine"` // id it was first seen on
	Created    time.Time  `json:"created"`
	Approved   *time.Time `json:"approved,omitempty"`
	ApprovedBy string     `json:"approved_by,omitempty"`
	// CommandLine is the kernel's, where it is known as text; the claims hold its
	// digest.
	CommandLine string  `json:"command_line,omitempty"`
	Claims      []Claim `json:"claims,omitempty"`
	// Findings are the claims that a person should look at before approving it.
	Findings []Claim `json:"findings,omitempty"`
}

// ApproveMeasurement is the body of a measurement's approval.
type ApproveMeasurement struct {
	Group string `json:"group,omitempty"`
}

// DismissMeasurement is the body that dismisses a measurement.
type DismissMeasurement struct {
	Group string `json:"group,omitempty" maxLength:"64" doc:"The group that it waits in; needed where it waits in several."`
}

// RetireMeasurement is the body that retires a measurement.
type RetireMeasurement struct {
	Group string `json:"group,omitempty" maxLength:"64" doc:"The group; needed where several have it."`
	// Boots is how many of the last good boots of each active machine had newer ones.
	Boots int `json:"boots" minimum:"1" maximum:"10" doc:"After how many good boots of newer ones on each active machine of the group."`
}

// Claim is one fact of a boot; see docs/attestation.md.
type Claim struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// SubmitMeasurement is the body that enters a computed measurement: the claims
// that a boot file leads to, laid over those of a base.
type SubmitMeasurement struct {
	// Base is machine/NAME or measurement/ID.
	Base string `json:"base"`
	// Group is that of a base that several groups have.
	Group string `json:"group,omitempty"`
	// Files is the canonical form of a set of claims of kind files.
	Files []byte `json:"files"`
}

// Explanation says why a machine's last request ended as it did, and what would
// be different.
type Explanation struct {
	Machine Machine `json:"machine"`
	// Last is the newest entry about a release or a refusal; absent before the first.
	Last *AuditEntry `json:"last,omitempty"`
	// Summary is one sentence; Advice says what to do.
	Summary string `json:"summary"`
	Advice  string `json:"advice,omitempty"`
	// Differences compare the boot that was refused with the nearest approved one.
	Differences []Difference `json:"differences,omitempty"`
}

// Difference is one fact that differed.
type Difference struct {
	Name string `json:"name"`
	Was  string `json:"was"`
	Is   string `json:"is"`
}

// AuditEntry is an entry of the audit log.
type AuditEntry struct {
	// Index is the leaf index in the tree; -1 until it is sequenced.
	Index    int64        `json:"index"`
	ID       string       `json:"id"`
	Time     time.Time    `json:"time"`
	Actor    string       `json:"actor"` // kind/id
	Action   string       `json:"action"`
	Object   string       `json:"object,omitempty"`
	Outcome  string       `json:"outcome"`
	Code     string       `json:"code,omitempty"`
	Policies []string     `json:"policies,omitempty"`
	Facts    []Difference `json:"facts,omitempty"`
	// Request is the id of the request that caused it.
	Request string `json:"request,omitempty"`
	Release string `json:"release,omitempty"`
	Count   int64  `json:"count"`
}

// AuditHead is the newest signed head of the audit log. Keep both elsewhere.
type AuditHead struct {
	// Key is the log's verifier key, origin+id+base64.
	Key string `json:"key"`
	// Head is a signed note; empty before the first.
	Head string `json:"head"`
	// Size is the number of entries that it covers.
	Size int64 `json:"size"`
}

// BackupRequest is the body that asks for a backup of the store.
type BackupRequest struct {
	// Path is absolute, on the service's host, and must not exist.
	Path string `json:"path"`
}

// Backup reports a backup that is complete and durable.
type Backup struct {
	Path string `json:"path"`
	// Bytes is the size of the file.
	Bytes int64     `json:"bytes"`
	Taken time.Time `json:"taken"`
}

// Status is the state of the service.
type Status struct {
	Version string `json:"version"`
	// ServiceKey is the fingerprint that guests pin.
	ServiceKey string    `json:"service_key"`
	GuestURL   string    `json:"guest_url"`
	Started    time.Time `json:"started"`
	Ready      bool      `json:"ready"`
	Reasons    []string  `json:"reasons,omitempty"` // why it is not ready
	// Degraded says what is wrong that stops nothing yet.
	Degraded []string         `json:"degraded,omitempty"`
	Roots    []string         `json:"roots"`
	Machines map[string]int64 `json:"machines"`
	Volumes  int64            `json:"volumes"`
	// Alarms are how many are open of each kind: counters, copied, foreign.
	Alarms map[string]int64 `json:"alarms"`
	Audit  AuditStatus      `json:"audit"`
	// LastBackup is when the store was last backed up; absent if never.
	LastBackup *time.Time `json:"last_backup,omitempty"`
	// KeysSince tells that what opens volumes changed after that: their machines would
	// not boot where it is restored.
	KeysSince bool `json:"keys_since,omitempty"`
}

// AuditStatus is the state of the audit log.
type AuditStatus struct {
	Entries   int64 `json:"entries"`
	Sequenced int64 `json:"sequenced"`
	// Key is the log's verifier key, origin+id+base64.
	Key string `json:"key"`
}
