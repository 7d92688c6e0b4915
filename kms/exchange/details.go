package exchange

import (
	"fmt"

	"github.com/go-json-experiment/json"
)

// EnrollDetails is the JSON in a statement with [PurposeEnroll].
type EnrollDetails struct {
	// Name is the name the machine proposes for itself.
	Name string `json:"name"`
	// Add says that an active machine adds these volumes to those it has.
	Add bool `json:"add,omitempty"`
	// NoRecoveryKey has the service make none for the volumes.
	NoRecoveryKey bool `json:"no_recovery_key,omitzero"`
}

// CommitDetails is the JSON in a statement with [PurposeCommit].
type CommitDetails struct {
	// CommandLine is the kernel's, as /proc/cmdline shows it. The service
	// believes it only where the measured digest is that of this text.
	CommandLine string         `json:"command_line,omitempty"`
	Volumes     []VolumeReport `json:"volumes"`
	// NextBoot is what the files of the next boot lead to: the canonical form of
	// a set of claims of kind files; empty where nothing could be predicted.
	NextBoot []byte `json:"next_boot"`
	// Add says that the volumes are added to those of an active machine. NextBoot
	// is empty then.
	Add bool `json:"add,omitempty"`
}

// BootDetails is the JSON in a statement with [PurposeBoot].
type BootDetails struct {
	CommandLine string         `json:"command_line,omitempty"` // see [CommitDetails]
	Volumes     []VolumeReport `json:"volumes"`
	// ServiceKeys are the fingerprints that the guest pins, at most [MaxServiceKeys];
	// empty: the one that the statement names alone.
	ServiceKeys [][]byte `json:"service_keys,omitempty"`
}

// MaxBoots bounds the boots that one [StageDetails] names.
const MaxBoots = 16

// StageDetails is the JSON in a statement with [PurposeStage].
type StageDetails struct {
	CommandLine string         `json:"command_line,omitempty"` // see [CommitDetails]
	Volumes     []VolumeReport `json:"volumes"`
	// Boots are those that the machine's boot loader can start next: first the
	// one that it starts where nobody chooses.
	Boots []NextBoot `json:"boots"`
	// Fault says why the next boot would open no volumes whatever the service
	// says, such as a keyslot that is missing: printable ASCII, at most MaxFault
	// bytes; empty where the guest knows of nothing.
	Fault string `json:"fault,omitempty"`
	// Check only asks what would become of the boots, and stages none.
	Check bool `json:"check,omitempty"`
}

// MaxFault bounds the faults of [StageDetails], in bytes each.
const MaxFault = 200

// NextBoot is a boot that can follow.
type NextBoot struct {
	// Files is what its files lead to: the canonical form of a set of claims of
	// kind files. Empty: the same as the running one.
	Files []byte `json:"files,omitempty"`
	// Unknown says why its files tell nothing, so that it is judged as the running
	// one: printable ASCII, at most MaxFault bytes; empty where they do.
	Unknown string `json:"unknown,omitempty"`
}

// RekeyDetails is the JSON in a statement with [PurposeRekey], which names one
// volume.
type RekeyDetails struct {
	// Becomes is as in [VolumeReport].
	Becomes []byte `json:"becomes,omitempty"`
}

// RekeyedDetails is the JSON in a statement with [PurposeRekeyed], which names one
// volume.
type RekeyedDetails struct {
	// Version is that of the secret that was ordered.
	Version uint32       `json:"version"`
	Volume  VolumeReport `json:"volume"`
	// Done says that the keyslot of the version before is gone. Before, the report
	// says that the one of Version is there and was opened.
	Done bool `json:"done,omitempty"`
	// Fault says why there is no such keyslot: printable ASCII, at most MaxFault
	// bytes; empty where there is.
	Fault string `json:"fault,omitempty"`
	// Reencryption says that the report is about a reencryption, whose rekey is over.
	Reencryption Stage `json:"reencryption,omitempty"`
	// Progress is of StageProgress alone.
	Progress *Progress `json:"progress,omitempty"`
}

// VolumeReport is what a guest reports of a LUKS header beside its identity.
// It is recorded and compared, and never decides about a release.
type VolumeReport struct {
	ID string `json:"id"` // volume id
	// VolumeKeyDigest is the digest of the volume key in the header: equal on
	// two machines, it means a copied disk.
	VolumeKeyDigest []byte `json:"volume_key_digest"`
	// Sequence counts the changes of the header.
	Sequence uint64 `json:"sequence"`
	// Size is that of the data, in bytes: of the mapping, without the header.
	Size   uint64      `json:"size"`
	Slots  []LUKSSlot  `json:"slots"`
	Tokens []LUKSToken `json:"tokens"`
	// Becomes is the identity digest that a header under reencryption will have; of
	// it neither size, slots, tokens nor a volume key are reported. Empty otherwise.
	Becomes []byte `json:"becomes,omitempty"`
}

// LUKSSlot is a keyslot of a LUKS2 header.
type LUKSSlot struct {
	ID       int    `json:"id"`
	KDF      string `json:"kdf"`
	Priority int    `json:"priority"`
	// Mark differs for every keyslot that was made, be its number the same: 8 hex
	// digits of the SHA-256 of its salt.
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
	// assigned to one; empty after.
	Announced []int `json:"announced,omitempty"`
}

// Details are what can stand in a statement.
type Details interface {
	EnrollDetails | CommitDetails | BootDetails | StageDetails | KeyDetails | RekeyDetails | RekeyedDetails
}

// MarshalDetails encodes one of the details for [Statement].Details.
func MarshalDetails[T Details](details T) ([]byte, error) {
	out, err := json.Marshal(details)
	if err != nil {
		return nil, fmt.Errorf("encoding the details of a statement: %w", err)
	}
	return out, nil
}

// ParseDetails decodes what [MarshalDetails] encoded. Unknown and duplicate
// members, other letter case and trailing data are [ErrMalformed]; the error
// repeats none of the input.
func ParseDetails[T Details](data []byte) (T, error) {
	var details T
	if err := json.Unmarshal(data, &details, json.RejectUnknownMembers(true)); err != nil {
		var none T
		return none, fmt.Errorf("%w details of a statement: not the JSON object of this step", ErrMalformed)
	}
	return details, nil
}
