package exchange

import (
	"fmt"

	"github.com/go-json-experiment/json"
)

// EnrollDetails is the JSON in a statement with [PurposeEnroll].
type EnrollDetails struct {
	// Name is the name the machine proposes for itself.
	Name string `json:"name"`
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
}

// BootDetails is the JSON in a statement with [PurposeBoot].
type BootDetails struct {
	CommandLine string         `json:"command_line,omitempty"` // see [CommitDetails]
	Volumes     []VolumeReport `json:"volumes"`
}

// VolumeReport is what a guest reports of a LUKS header beside its identity.
// It is recorded and compared, and never decides about a release.
type VolumeReport struct {
	ID string `json:"id"` // volume id
	// VolumeKeyDigest is the digest of the volume key in the header: equal on
	// two machines, it means a copied disk.
	VolumeKeyDigest []byte `json:"volume_key_digest"`
	// Sequence counts the changes of the header.
	Sequence uint64      `json:"sequence"`
	Slots    []LUKSSlot  `json:"slots"`
	Tokens   []LUKSToken `json:"tokens"`
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
}

// MarshalDetails encodes one of the details for [Statement].Details.
func MarshalDetails[T EnrollDetails | CommitDetails | BootDetails](details T) ([]byte, error) {
	out, err := json.Marshal(details)
	if err != nil {
		return nil, fmt.Errorf("encoding the details of a statement: %w", err)
	}
	return out, nil
}

// ParseDetails decodes what [MarshalDetails] encoded. Unknown and duplicate
// members, other letter case and trailing data are [ErrMalformed]; the error
// repeats none of the input.
func ParseDetails[T EnrollDetails | CommitDetails | BootDetails](data []byte) (T, error) {
	var details T
	if err := json.Unmarshal(data, &details, json.RejectUnknownMembers(true)); err != nil {
		var none T
		return none, fmt.Errorf("%w details of a statement: not the JSON object of this step", ErrMalformed)
	}
	return details, nil
}
