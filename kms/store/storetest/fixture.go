package storetest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
)

// Actions of the entries that the suite makes.
const (
	actionRelease = "boot.release"
	actionRevoke  = "machine.revoke"
)

// Epoch is when the suite's rows were created. Stores keep times to the
// microsecond, in UTC.
func Epoch() time.Time { return time.Date(2026, 3, 14, 9, 26, 53, 589_793_000, time.UTC) }

// MachineID returns a machine id that differs for every n.
func MachineID(n int) string { return hex.EncodeToString(digestOf("machine", n)) }

// VolumeID returns a volume id that differs for every n.
func VolumeID(n int) string { return hex.EncodeToString(digestOf("volume", n)[:16]) }

// Digest returns 32 bytes that differ for every kind and n.
func Digest(kind string, n int) [32]byte { return [32]byte(digestOf(kind, n)) }

func digestOf(kind string, n int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
	return sum[:]
}

// NewMachine returns an active machine; every field has a value.
func NewMachine(n int) *kms.Machine {
	return &kms.Machine{
		ID: MachineID(n), Name: fmt.Sprintf("web-%d", n), Proposed: fmt.Sprintf("proposed-%d", n),
		Group: "web", Status: kms.MachineActive, Committed: true,
		EK: bytes.Repeat([]byte{1}, 314), EKCert: bytes.Repeat([]byte{2}, 1100),
		AK: bytes.Repeat([]byte{3}, 88), AKName: append([]byte{0, 11}, digestOf("ak", n)...),
		Trust: "root:example", Tier: "exact",
		Measurement: Digest("measurement", 0), Expected: Digest("measurement", 1), ExpectedPlatform: Digest("platform", n),
		Platform: Digest("platform", n), Release: Digest("release", n), Opened: []string{VolumeID(2 * n), VolumeID(2*n + 1)}, Announced: Epoch().Add(3 * time.Hour), Fault: "no keyslot", Unforeseen: true,
		Counters: kms.Counters{ResetCount: 7, RestartCount: 2, Clock: 90_000, Safe: true},
		Releases: []uint64{88_000, 89_000}, Regressed: true,
		ReadmitUntil: Epoch().Add(3 * time.Hour), RestoreUntil: Epoch().Add(4 * time.Hour), ReenrollUntil: Epoch().Add(5 * time.Hour),
		Created: Epoch(), Approved: Epoch().Add(time.Minute), ApprovedBy: "root",
		LastRelease: Epoch().Add(time.Hour), LastRefusal: Epoch().Add(2 * time.Hour),
		Floors: []time.Time{Epoch().Add(3 * time.Hour), Epoch().Add(2 * time.Hour), {}},
		Pins:   [][32]byte{Digest("pin", 1), Digest("pin", 2)},
	}
}

// NewVolume returns volume n of a machine; every field has a value.
func NewVolume(machine string, n int) kms.Volume {
	return kms.Volume{
		ID: VolumeID(n), Machine: machine, UUID: fmt.Sprintf("0f3c2f4e-6f0a-4d3c-9a5e-%012d", n),
		Status: kms.VolumeActive, Identity: digestOf("identity", n), VolumeKeyDigest: digestOf("volume key", n),
		Inventory: bytes.Repeat([]byte("{}"), 200), Size: 10 << 30, Accepted: digestOf("accepted", n),
		Foreign: true, Copied: true, Resume: digestOf("resume", n)[:16],
		Keyring: kms.DefaultKeyring, Created: Epoch(), Reencrypted: Epoch().Add(time.Hour),
	}
}

// NewSecret returns a version of a volume's secret; every field has a value.
func NewSecret(volume string, version uint32) kms.Secret {
	return kms.Secret{
		Volume: volume, Version: version, Purpose: kms.PurposeKeyslot, Status: kms.SecretCurrent,
		Keyring: kms.DefaultKeyring, KeyringVersion: 1,
		Wrapped: "kw1.default.1." + string(bytes.Repeat([]byte("w"), 166)), Created: Epoch(),
		Replaced: Epoch().Add(time.Hour), AtBoot: true,
	}
}

// NewRecoveryKey returns a version of a volume's recovery key; every field has a
// value.
func NewRecoveryKey(volume string, version uint32) kms.Secret {
	s := NewSecret(volume, version)
	s.Purpose, s.Disclosed, s.AgeCopy = kms.PurposeRecovery, Epoch().Add(time.Hour), "-----BEGIN AGE ENCRYPTED FILE-----"
	return s
}

// NewMeasurement returns measurement n in a group; every field has a value.
func NewMeasurement(group string, n int) kms.Measurement {
	return kms.Measurement{
		Digest: Digest("measurement", n), Group: group, Claims: bytes.Repeat([]byte("claim\n"), 300),
		CommandLine: "quiet", Status: kms.MeasurementApproved, Source: kms.SourceAttested, Machine: MachineID(0),
		Created: Epoch(), Approved: Epoch().Add(time.Minute), ApprovedBy: "root",
	}
}

// NewPlatform returns platform set n of a machine; every field has a value.
func NewPlatform(machine string, n int) kms.Platform {
	return kms.Platform{
		Machine: machine, Digest: Digest("platform", n), Claims: bytes.Repeat([]byte("claim\n"), 100),
		Approved: true, Created: Epoch().Add(time.Duration(n) * time.Second), Expires: Epoch().Add(time.Hour),
	}
}

// NewSigner returns a signer of the suite's log.
func NewSigner(t testing.TB) *audit.Signer {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	signer, err := audit.NewSigner("audit.example.com/keywright", key)
	require.NoError(t, err)
	return signer
}

// NewEntry returns a signed audit entry about a machine that differs for every n.
func NewEntry(t testing.TB, signer *audit.Signer, machine, action string, n int) kms.LogEntry {
	t.Helper()
	var id audit.ID
	binary.BigEndian.PutUint64(id[8:], uint64(n)+1)
	signed, err := signer.Sign(audit.Entry{
		ID: id, Time: Epoch(), Actor: audit.Actor{Kind: audit.ActorMachine, ID: MachineID(n)},
		Action: action, Object: "machine/" + MachineID(n), Outcome: audit.Allowed,
		Policies: []string{"release-approved-boot"}, Request: fmt.Sprintf("req-%d", n), Count: 1,
	})
	require.NoError(t, err)
	return kms.LogEntry{Signed: signed, Machine: machine, Action: action, Time: Epoch()}
}

// Extend is a build function for [kms.Sequencer].
func Extend(signer *audit.Signer) func([]byte, audit.HashReader, []audit.Hash) (kms.Sequenced, error) {
	return func(head []byte, hashes audit.HashReader, leaves []audit.Hash) (kms.Sequenced, error) {
		tree := audit.EmptyTree()
		if len(head) > 0 {
			var err error
			if tree, err = signer.Verifier().OpenHead(head); err != nil {
				return kms.Sequenced{}, err
			}
		}
		appended, err := audit.Append(hashes, tree, leaves)
		if err != nil {
			return kms.Sequenced{}, err
		}
		next, err := signer.SignHead(appended.Tree)
		return kms.Sequenced{Appended: appended, Head: next}, err
	}
}

// decideTo returns a decision that does not depend on the state.
func decideTo(o kms.Outcome) func(kms.State) (kms.Outcome, error) {
	return func(kms.State) (kms.Outcome, error) { return o, nil }
}

// put writes an outcome that depends on nothing.
func put(t testing.TB, s Store, o kms.Outcome) {
	t.Helper()
	require.NoError(t, s.Transact(context.Background(), kms.Key{}, decideTo(o)))
}

// stateOf returns what a decision with that key sees.
func stateOf(t testing.TB, s Store, key kms.Key) (seen kms.State) {
	t.Helper()
	require.NoError(t, s.Transact(context.Background(), key, func(state kms.State) (kms.Outcome, error) {
		seen = state
		return kms.Outcome{}, nil
	}))
	return seen
}

// family is a machine with two volumes and three secrets.
func family(n int) kms.Outcome {
	id, one, two := MachineID(n), VolumeID(2*n), VolumeID(2*n+1)
	return kms.Outcome{
		Machine: NewMachine(n),
		Volumes: []kms.Volume{NewVolume(id, 2*n), NewVolume(id, 2*n+1)},
		Secrets: []kms.Secret{NewSecret(one, 1), NewSecret(one, 2), NewSecret(two, 1)},
	}
}
