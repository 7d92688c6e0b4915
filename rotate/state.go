package rotate

import (
	"iter"
	"time"

	"keywright.dev/kms"
)

// State is what there is at one moment.
type State struct {
	// Keyrings are all of them, with their census.
	Keyrings []kms.Keyring
	// Volumes yields, in the order of their ids, the volumes that are active of
	// machines that are; an error ends it. What a volume's lists hold may be
	// overwritten by the next.
	Volumes iter.Seq2[Volume, error]
	// Superseded are the measurements that [Superseded] found.
	Superseded []Measurement
	Excuses    []Excuse
	Speed      Speed
}

// Volume is one LUKS volume and what is known of its keys.
type Volume struct {
	ID      string
	Machine string // id
	Name    string // of the machine
	Group   string // of the machine
	Keyring string // that new secrets of it are wrapped with

	// Bytes is its size; 0 where nobody knows.
	Bytes int64
	// Created is when the volume was enrolled, Reencrypted when its data last came
	// under a new volume key; zero before that.
	Created     time.Time
	Reencrypted time.Time

	// Secret is the current one, Recovery the recovery key; of version 0 where
	// there is none.
	Secret   Secret
	Recovery Secret
	// RestoreOnly are the secrets from before, that are kept for restores.
	RestoreOnly []Retained
	// Wrapped are the keyring versions that ever wrapped a secret of it, those that
	// were destroyed included.
	Wrapped []Versions
	// Order is what is under way; of no kind where nothing is.
	Order Order

	// Connected tells that an agent of the machine waits for orders, or carries one
	// out; Seen when the machine last had its keys; zero where never.
	Connected bool
	Seen      time.Time
	// RestoreUntil is until when a disk of the machine may be put back to what it was.
	RestoreUntil time.Time
}

// holds returns what a secret that was kept for restores is kept for still.
func (v *Volume) holds(version uint32, now time.Time) Hold {
	switch {
	case v.needs(version):
		return HoldOrder
	case now.Before(v.RestoreUntil):
		return HoldRestore
	default:
		return HoldNone
	}
}

// needs tells whether an open order has use for a version of the secret.
func (v *Volume) needs(version uint32) bool { return v.Order.Kind != "" && v.Order.From == version }

// keySince is when the volume key was made.
func (v *Volume) keySince() time.Time {
	if v.Reencrypted.IsZero() {
		return v.Created
	}
	return v.Reencrypted
}

// Secret is one version of what opens a keyslot of a volume.
type Secret struct {
	Version uint32
	// Created is when it was made, with its order.
	Created time.Time
	// AtBoot tells that the machine got it in an attested boot, not while it ran.
	AtBoot bool
	// Wrapped are the keyring versions that ever wrapped it. A rewrap within a keyring
	// lengthens its range; another keyring begins one.
	Wrapped []Versions
}

// Versions are those of a keyring from First to Last.
type Versions struct {
	Keyring     string
	First, Last uint32
}

// contain tells whether a keyring version is among some.
func contain(list []Versions, keyring string, version uint32) bool {
	for _, w := range list {
		if w.Keyring == keyring && w.First <= version && version <= w.Last {
			return true
		}
	}
	return false
}

// Retained is a secret that a newer one took the place of.
type Retained struct {
	Secret
	Replaced time.Time
}

// Order is a rekey or a reencryption of a volume that has begun.
type Order struct {
	Kind   Kind // [RekeyVolume] or [ReencryptVolume]
	Opened time.Time
	// From is the version of the secret that may open the volume until the order is
	// done; after a restore that is one which was kept for it.
	From uint32
	// AtBoot tells that it waits for an attested boot, also of a machine that can be
	// reached.
	AtBoot bool
	// Attempts counts those that failed.
	Attempts int
}
