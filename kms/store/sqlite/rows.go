package sqlite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// each maps rows; no rows are nil.
func each[From, To any](from []From, convert func(From) To) []To {
	var to []To
	for _, f := range from {
		to = append(to, convert(f))
	}
	return to
}

// fromTime returns microseconds since 1970; 0 for the zero time.
func fromTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func toTime(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// blob makes empty bytes NULL.
func blob(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// digestBlob makes the zero digest NULL.
func digestBlob(d [32]byte) []byte {
	if d == [32]byte{} {
		return nil
	}
	return d[:]
}

// digest reads what digestBlob wrote.
func digest(b []byte) (d [32]byte) {
	copy(d[:], b)
	return d
}

func toMachine(r sqlitedb.WholeMachine) (kms.Machine, error) {
	m := kms.Machine{
		ID: r.ID, Name: r.Name, Proposed: r.Proposed, Group: r.InGroup,
		Status: kms.MachineStatus(r.Status), Committed: r.Committed,
		// Copies: the row is compared with what comes back.
		EK: bytes.Clone(r.EK), EKCert: bytes.Clone(r.EKCert),
		AK: bytes.Clone(r.AK), AKName: bytes.Clone(r.AKName),
		Trust: r.Trust, Tier: r.Tier,
		Measurement: digest(r.Measurement), Expected: digest(r.Expected), ExpectedPlatform: digest(r.ExpectedPlatform),
		Platform: digest(r.Platform), Release: digest(r.ReleaseID), Opened: each(strings.Fields(r.Opened), strings.Clone), Announced: toTime(r.Announced), Fault: r.Fault, Unforeseen: r.Unforeseen,
		Counters: kms.Counters{
			ResetCount: uint32(r.ResetCount), RestartCount: uint32(r.RestartCount),
			Clock: uint64(r.Clock), Safe: r.Safe,
		},
		Regressed: r.Regressed, ReadmitUntil: toTime(r.ReadmitUntil),
		RestoreUntil: toTime(r.RestoreUntil), ReenrollUntil: toTime(r.ReenrollUntil),
		Created: toTime(r.Created), Approved: toTime(r.Approved), ApprovedBy: r.ApprovedBy,
		LastRelease: toTime(r.LastRelease), LastRefusal: toTime(r.LastRefusal),
		Floors: toTimes(r.Floors), Pins: toDigests(r.Pins),
	}
	if r.Releases != "" {
		if err := json.Unmarshal([]byte(r.Releases), &m.Releases); err != nil {
			return kms.Machine{}, fmt.Errorf("releases of machine %s: %w", r.ID, err)
		}
	}
	return m, nil
}

func fromMachine(m kms.Machine) (sqlitedb.WholeMachine, error) {
	r := sqlitedb.WholeMachine{
		ID: m.ID, Name: m.Name, Proposed: m.Proposed, InGroup: m.Group,
		Status: string(m.Status), Committed: m.Committed,
		EK: blob(m.EK), EKCert: blob(m.EKCert), AK: blob(m.AK), AKName: blob(m.AKName),
		Trust: m.Trust, Tier: m.Tier,
		Measurement: digestBlob(m.Measurement), Expected: digestBlob(m.Expected),
		ExpectedPlatform: digestBlob(m.ExpectedPlatform),
		Platform:         digestBlob(m.Platform), ReleaseID: digestBlob(m.Release), Opened: strings.Join(m.Opened, " "), Announced: fromTime(m.Announced), Fault: m.Fault, Unforeseen: m.Unforeseen,
		ResetCount: int64(m.Counters.ResetCount), RestartCount: int64(m.Counters.RestartCount),
		Clock: int64(m.Counters.Clock), Safe: m.Counters.Safe,
		Regressed: m.Regressed, ReadmitUntil: fromTime(m.ReadmitUntil),
		RestoreUntil: fromTime(m.RestoreUntil), ReenrollUntil: fromTime(m.ReenrollUntil),
		Created: fromTime(m.Created), Approved: fromTime(m.Approved), ApprovedBy: m.ApprovedBy,
		LastRelease: fromTime(m.LastRelease), LastRefusal: fromTime(m.LastRefusal),
		Floors: fromTimes(m.Floors), Pins: fromDigests(m.Pins),
	}
	if len(m.Releases) > 0 {
		text, err := json.Marshal(m.Releases)
		if err != nil {
			return sqlitedb.WholeMachine{}, fmt.Errorf("releases of machine %s: %w", m.ID, err)
		}
		r.Releases = string(text)
	}
	return r, nil
}

func putMachine(r sqlitedb.WholeMachine) sqlitedb.PutMachineParams {
	return sqlitedb.PutMachineParams{
		ID: r.ID, Name: r.Name, Proposed: r.Proposed, InGroup: r.InGroup, Status: r.Status, Committed: r.Committed,
		EK: r.EK, EKCert: r.EKCert, AK: r.AK, AKName: r.AKName, Trust: r.Trust,
		Created: r.Created, Approved: r.Approved, ApprovedBy: r.ApprovedBy,
	}
}

func putMachineState(r sqlitedb.WholeMachine) sqlitedb.PutMachineStateParams {
	return sqlitedb.PutMachineStateParams{
		Machine: r.Num, Tier: r.Tier,
		Measurement: r.Measurement, Expected: r.Expected, ExpectedPlatform: r.ExpectedPlatform,
		Platform: r.Platform, ReleaseID: r.ReleaseID, Opened: r.Opened, Announced: r.Announced, Fault: r.Fault, Unforeseen: r.Unforeseen,
		ResetCount: r.ResetCount, RestartCount: r.RestartCount, Clock: r.Clock, Safe: r.Safe,
		Releases: r.Releases, Regressed: r.Regressed,
		ReadmitUntil: r.ReadmitUntil, RestoreUntil: r.RestoreUntil, ReenrollUntil: r.ReenrollUntil,
		LastRelease: r.LastRelease, LastRefusal: r.LastRefusal, Floors: r.Floors, Pins: r.Pins,
	}
}

func toVolume(r sqlitedb.Volume) kms.Volume {
	return kms.Volume{
		ID: r.ID, Machine: r.Machine, UUID: r.UUID, Status: kms.VolumeStatus(r.Status),
		Identity: r.Identity, VolumeKeyDigest: r.VolumeKeyDigest, Inventory: r.Inventory, Size: uint64(r.Size), Accepted: r.Accepted,
		Foreign: r.HasForeign, Copied: r.Copied, Resume: r.Resume,
		Keyring: r.Keyring, Created: toTime(r.Created), Reencrypted: toTime(r.Reencrypted),
	}
}

func fromVolume(v kms.Volume) sqlitedb.PutVolumeParams {
	return sqlitedb.PutVolumeParams{
		ID: v.ID, Machine: v.Machine, UUID: v.UUID, Status: string(v.Status),
		Identity: blob(v.Identity), VolumeKeyDigest: blob(v.VolumeKeyDigest),
		Inventory: blob(v.Inventory), Size: int64(v.Size), Accepted: blob(v.Accepted), HasForeign: v.Foreign, Copied: v.Copied, Resume: blob(v.Resume),
		Keyring: v.Keyring, Created: fromTime(v.Created), Reencrypted: fromTime(v.Reencrypted),
	}
}

func toSecret(r sqlitedb.Secret) kms.Secret {
	return kms.Secret{
		Volume: r.Volume, Version: uint32(r.Version), Purpose: r.Purpose, Status: kms.SecretStatus(r.Status),
		Keyring: r.Keyring, KeyringVersion: uint32(r.KeyringVersion), Wrapped: r.Wrapped, Created: toTime(r.Created),
		Replaced: toTime(r.Replaced), AtBoot: r.AtBoot,
		Disclosed: toTime(r.Disclosed), AgeCopy: r.AgeCopy,
	}
}

func fromSecret(s kms.Secret) sqlitedb.PutSecretParams {
	return sqlitedb.PutSecretParams{
		Volume: s.Volume, Version: int64(s.Version), Purpose: s.Purpose, Status: string(s.Status),
		Keyring: s.Keyring, KeyringVersion: int64(s.KeyringVersion), Wrapped: s.Wrapped, Created: fromTime(s.Created),
		Replaced: fromTime(s.Replaced), AtBoot: s.AtBoot,
		Disclosed: fromTime(s.Disclosed), AgeCopy: s.AgeCopy,
	}
}

func toMeasurement(r sqlitedb.Measurement) kms.Measurement {
	return kms.Measurement{
		Digest: digest(r.Digest), Group: r.InGroup, Claims: r.Claims, CommandLine: r.Cmdline,
		Status: kms.MeasurementStatus(r.Status), Source: kms.MeasurementSource(r.Source), Machine: r.Machine,
		Created: toTime(r.Created), Approved: toTime(r.Approved), ApprovedBy: r.ApprovedBy,
	}
}

func fromMeasurement(m kms.Measurement) sqlitedb.PutMeasurementParams {
	return sqlitedb.PutMeasurementParams{
		Digest: m.Digest[:], InGroup: m.Group, Claims: blob(m.Claims), Cmdline: m.CommandLine,
		Status: string(m.Status), Source: string(m.Source), Machine: m.Machine,
		Created: fromTime(m.Created), Approved: fromTime(m.Approved), ApprovedBy: m.ApprovedBy,
	}
}

func toPlatform(r sqlitedb.Platform) kms.Platform {
	return kms.Platform{
		Machine: r.Machine, Digest: digest(r.Digest), Claims: r.Claims,
		Approved: r.Approved, Created: toTime(r.Created), Expires: toTime(r.Expires),
	}
}

func fromPlatform(p kms.Platform) sqlitedb.PutPlatformParams {
	return sqlitedb.PutPlatformParams{
		Machine: p.Machine, Digest: p.Digest[:], Claims: blob(p.Claims),
		Approved: p.Approved, Created: fromTime(p.Created), Expires: fromTime(p.Expires),
	}
}
