package kms

import "time"

// VolumeKeys is a volume with what is known of its secrets, and no secret: what
// rotations are planned from.
type VolumeKeys struct {
	ID      string
	Status  VolumeStatus
	Keyring string // that new secrets are wrapped with
	Created time.Time
	// Reencrypted is when the data last came under a new volume key; zero if never.
	Reencrypted time.Time
	Size        uint64 // as in [Volume]

	Machine       string // id
	Name, Group   string // of the machine
	MachineStatus MachineStatus
	// Released is when a boot of the machine last had its keys; zero if never.
	Released time.Time
	// RestoreUntil is until when a restore of the machine is announced.
	RestoreUntil time.Time

	// Secrets are those that there are, ordered by purpose and version.
	Secrets []SecretHistory
	// Wrapped are the keyring versions that ever wrapped a secret which is gone.
	Wrapped []KeyringRange
	// Order is what is under way; nil where nothing is.
	Order *Order
}

// ToPlan names volumes, few of many: those with an order, and those that have
type ToPlan struct {
	// a current secret for boots that was made at Made or before, or after Begun,
	Made, Begun time.Time
	// or a restore-only one that was replaced at Replaced or before.
	Replaced time.Time
}

// SecretHistory is what is known of one version of a secret.
type SecretHistory struct {
	Purpose  string
	Version  uint32
	Status   SecretStatus
	Created  time.Time
	Replaced time.Time
	AtBoot   bool
	// Wrapped are the keyring versions that ever wrapped it, the present one last.
	Wrapped []KeyringRange
}

// KeyringRange are versions of a keyring, from First to Last. Some between them may
// never have wrapped anything: a rewrap may leave versions out.
type KeyringRange struct {
	Keyring     string
	First, Last uint32
}
