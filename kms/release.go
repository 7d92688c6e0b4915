package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/envelope"
	"keywright.dev/kms/exchange"
)

const (
	// maxReleases in releaseWindow of TPM clock is how often a lost response
	// may be asked for again.
	maxReleases   = 5
	releaseWindow = uint64(10 * time.Minute / time.Millisecond)
	// maxSeen bounds the measurements, and the platform sets, that wait for an
	// operator, for each machine.
	maxSeen = 16
	// maxNearest bounds the approved measurements that a refused one is
	// compared with.
	maxNearest = 64
)

// Release answers a boot: the secrets of every volume that the statement
// names, or a [Refusal].
func (s *Service) Release(ctx context.Context, a Attested) (Sealed, error) {
	r, err := s.beginRelease(ctx, a)
	if err != nil {
		return Sealed{}, s.unproven(err, a.Source)
	}
	defer r.release.Wipe()
	if err := r.transact(ctx); err != nil {
		return Sealed{}, err
	}
	return s.seal(r.verified, &r.release)
}

// transact decides, again where a decision wants to see more: each kind of more
// once.
func (r *releasing) transact(ctx context.Context) error {
	for {
		err := r.service.transact(ctx, r.key(), r.decide)
		switch {
		case errors.Is(err, errNearest):
			if err := r.loadNearest(ctx); err != nil {
				return err
			}
		case errors.Is(err, errSameKey):
		default:
			return err
		}
	}
}

// releasing is one release under way.
type releasing struct {
	*verified
	service    *Service
	attested   Attested
	redemption Redemption
	details    exchange.BootDetails
	pins       [][32]byte
	release    exchange.Release

	// closed is set by a decision that lacks a keyring version.
	closed error
	// wantsNearest is set by a decision that refuses the measurement or the
	// platform: the differences are worth reading only then.
	wantsNearest Reason
	nearest      []claims.Difference
	nearestOf    string
	looked       bool

	// sameKeys are the digests of volume keys that are looked for on other
	// machines: those that are reported for the first time.
	sameKeys [][]byte
	alarms   []alarm
	now      time.Time // of this decision
	// restored are the secrets that open disks from before a rekey, which an operator
	// announced.
	restored []SecretRef
}

// beginRelease does what comes before the transaction: its refusals come before
// a valid signature.
func (s *Service) beginRelease(ctx context.Context, a Attested) (*releasing, error) {
	v, redemption, err := s.verifyKnown(ctx, exchange.PurposeBoot, &a)
	if err != nil {
		return nil, err
	}
	r := &releasing{verified: v, service: s, attested: a, redemption: redemption}
	if r.release.ID, err = s.random32(); err != nil {
		return nil, err
	}
	if v.refusal == nil {
		r.details, err = exchange.ParseDetails[exchange.BootDetails](v.statement.Details)
		if r.pins, err = pinsOf(v.statement, r.details.ServiceKeys, err); err != nil {
			v.refusal = refuse(ReasonMalformed, "the details of the statement cannot be parsed")
		}
	}
	return r, nil
}

// verifyKnown recognises the challenge and verifies a quote by the AK of an
// enrolled machine.
func (s *Service) verifyKnown(ctx context.Context, purpose exchange.Purpose, a *Attested) (*verified, Redemption, error) {
	redemption, err := s.Challenges.Check(purpose, a.Challenge, a.Token)
	if err != nil {
		return nil, Redemption{}, err
	}
	v, err := s.verifyMachine(ctx, purpose, a)
	return v, redemption, err
}

func (s *Service) verifyMachine(ctx context.Context, purpose exchange.Purpose, a *Attested) (*verified, error) {
	machine, err := s.Store.Machine(ctx, a.Machine)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil, refuse(ReasonMachine, "no machine has this id")
		}
		return nil, fmt.Errorf("looking up a machine: %w", err)
	}
	ek, ak, refusal := keysOf(machine)
	if refusal != nil {
		return nil, refusal
	}
	v, refusal := s.verify(purpose, a, ek, ak)
	if refusal != nil {
		return nil, refusal
	}
	limits := s.limits
	if purpose == exchange.PurposeKey {
		limits = s.keyLimits
	}
	if !limits.allow(machine.ID) {
		return nil, refuse(ReasonRate, "the machine asks too often")
	}
	return v, nil
}

func (r *releasing) key() Key {
	key := r.verified.key(&r.attested, &r.redemption)
	key.VolumeKeys = r.sameKeys
	return key
}

// decide is the decision about one release. Whatever it is, the challenge is
// spent and the entry written; counters move unless they went back.
func (r *releasing) decide(state State) (Outcome, *Refusal, error) {
	r.reset()
	if state.Machine == nil || !bytes.Equal(state.Machine.AK, r.ak.Public) {
		return Outcome{}, nil, fmt.Errorf("deciding a release: the machine changed meanwhile: %w", ErrUnavailable)
	}
	d := machineDraft(ActionRelease, &r.attested)
	if state.Redeemed {
		return r.service.refused(Outcome{}, d, refuseReplay())
	}
	out := Outcome{Redeem: &r.redemption}
	refusal := r.judge(&state, &d)
	if r.closed != nil {
		return Outcome{}, nil, r.closed
	}
	if refusal != nil && (refusal.Reason == ReasonMeasurement || refusal.Reason == ReasonPlatform) && !r.looked {
		r.wantsNearest = refusal.Reason
		return Outcome{}, nil, errNearest
	}
	if refusal == nil && r.wantsSameKey(&state) {
		return Outcome{}, nil, errSameKey
	}
	if err := r.record(&out, &state, refusal); err != nil {
		return Outcome{}, nil, err
	}
	if refusal != nil {
		d.differences(r.nearest)
		return r.service.refused(out, d, refusal)
	}
	d.release = hexDigest(r.release.ID)
	d.fact("tpm.counters", formatCounters(state.Machine.Counters), formatCounters(r.boot.Counters))
	if by := state.Machine.baselineBy(r.boot.Counters, r.now); by != "" {
		d.fact("tpm.baseline", "", by)
	}
	out, err := r.service.entered(out, d, audit.Allowed, nil)
	if err != nil {
		return Outcome{}, nil, err
	}
	r.release.Entry = out.Entries[0].Signed.Marshal()
	err = r.service.raise(&out, r.attested.Request, r.alarms)
	return out, nil, err
}

// reset undoes a run of decide that the store repeats.
func (r *releasing) reset() {
	r.release.Wipe()
	r.release.Secrets, r.release.Entry = nil, nil
	r.closed, r.wantsNearest, r.alarms, r.restored, r.now = nil, "", nil, nil, r.service.Clock()
}

// judge goes from the cheap and telling to the detailed; the first refusal is
// the one the guest is told.
func (r *releasing) judge(state *State, d *draft) *Refusal {
	m := state.Machine
	if refusal := judgeStatus(m.Status); refusal != nil {
		return refusal
	}
	if m.wentBack(r.boot.Counters, r.now) {
		d.fact("tpm.counters", formatCounters(m.Counters), formatCounters(r.boot.Counters))
		return refuse(ReasonCounters, "the TPM's counters went back: a copied vTPM, a restored snapshot, or a cleared TPM")
	}
	if r.refusal != nil {
		return r.refusal
	}
	if r.boot.PCR15 != [32]byte{} {
		return refuse(ReasonReleased, "PCR 15 is not zero: this boot had its release, or gave it up")
	}
	if len(r.releasesInWindow(m)) >= maxReleases {
		return refuse(ReasonRate, "%d releases in 10 minutes of TPM clock", maxReleases)
	}
	if refusal := judgeVolumes(r.statement.Volumes, r.becomes, state, d); refusal != nil {
		return refusal
	}
	if refusal := r.judgePolicy(state, d); refusal != nil {
		return refusal
	}
	return r.unwrap(state)
}

func judgeStatus(status MachineStatus) *Refusal {
	switch status {
	case MachineActive:
		return nil
	case MachineRevoked:
		return refuse(ReasonRevoked, "the machine is revoked")
	default:
		return refuse(ReasonPending, "the machine waits for approval")
	}
}

// judgeVolumes holds each volume of the statement against what was enrolled.
func judgeVolumes(volumes []exchange.Volume, becomes func(volume string) []byte, state *State, d *draft) *Refusal {
	for i, asked := range volumes {
		known := findVolume(state.Volumes, asked.ID)
		switch {
		case known == nil || known.Status != VolumeActive:
			return refuse(ReasonVolume, "volume %d of the statement is not enrolled", i+1)
		case findAsked(volumes[:i], asked.ID):
			return refuse(ReasonVolume, "volume %d of the statement is named twice", i+1)
		case known.UUID != asked.UUID:
			d.fact("volume.uuid", known.UUID, asked.UUID)
			return refuse(ReasonVolume, "the LUKS UUID of volume/%s is another", known.ID)
		}
		if refusal := judgeIdentity(known, findOrder(state.Orders, known.ID), asked, becomes(asked.ID)); refusal != nil {
			d.fact("volume.identity", hexBytes(known.Identity), hexDigest(asked.Identity))
			return refusal
		}
	}
	return nil
}

func (r *releasing) becomes(volume string) []byte { return becomesOf(r.details.Volumes, volume) }

// unwrap opens the current secret of each volume under the names of the keys
// that verified this quote.
func (r *releasing) unwrap(state *State) *Refusal {
	for _, asked := range r.statement.Volumes {
		volume := findVolume(state.Volumes, asked.ID)
		row, refusal := r.opensWith(state, volume)
		if refusal != nil {
			return refusal
		}
		key, err := r.service.Keys.Unwrap(secretContext(r.binding, state.Machine.ID, row, PurposeKeyslot), row.Wrapped)
		if err != nil {
			if !ofTheRow(err) {
				r.closed = err
			}
			return refuse(ReasonVolume, "the secret of volume/%s does not open for the keys that signed this quote", volume.ID)
		}
		r.release.Secrets = append(r.release.Secrets, exchange.ReleasedSecret{
			Volume: volume.ID, UUID: volume.UUID, Version: row.Version, Identity: asked.Identity, Key: key,
		})
	}
	return nil
}

// ofTheRow tells that a secret does not open for what its row says, and not since
// no root, or nobody, opens its keyring version now.
func ofTheRow(err error) bool {
	return errors.Is(err, envelope.ErrOpen) || errors.Is(err, envelope.ErrMalformed) || errors.Is(err, ErrNotFound)
}

// secretContext is what a machine's secret is wrapped under. Its purpose is what
// the secret is about to be used for, whatever the row says.
func secretContext(binding [32]byte, machine string, row *Secret, purpose string) envelope.Context {
	return envelope.Context{
		Keyring: row.Keyring, Version: row.KeyringVersion, Binding: binding[:],
		Machine: machine, Volume: row.Volume, Purpose: purpose, SecretVersion: row.Version,
	}
}

// record writes what signed evidence changes about a machine.
func (r *releasing) record(out *Outcome, state *State, refusal *Refusal) error {
	m := *state.Machine
	out.Machine = &m
	if r.refusal == nil && m.Status == MachineActive {
		r.remember(out, state)
	}
	if refusal != nil {
		if r.boot.Counters.Since(m.Counters) != attest.Regression {
			m.Releases, m.Counters = r.releasesInWindow(&m), r.boot.Counters
		}
		m.Regressed = m.Regressed || refusal.Reason == ReasonCounters
		m.LastRefusal = r.now
		return nil
	}
	m.Releases = append(r.releasesInWindow(&m), r.boot.Counters.Clock)
	m.rebase(r.boot.Counters)
	m.LastRelease, m.Tier, m.Measurement = r.now, string(r.boot.Tier), r.boot.Measurement.Digest()
	m.Platform, m.Release = r.boot.Platform.Digest(), r.release.ID
	m.Opened, m.Pins = idsOf(r.statement.Volumes), r.pins
	r.rekeyRestored(&m, state)
	if err := r.reported(out, state); err != nil {
		return err
	}
	r.received(out, state)
	r.finishReported(out, state)
	r.heedReencryptions(out, state)
	return r.deliverNext(out, state)
}

// remember keeps what is not known yet of an attested boot, so that an operator
// can look at it and approve it.
func (r *releasing) remember(out *Outcome, state *State) {
	m, now := state.Machine, r.now
	if len(state.Measurements) == 0 && state.SeenMeasurements < maxSeen {
		out.Measurements = []Measurement{{
			Digest: r.boot.Measurement.Digest(), Group: m.Group, Claims: r.boot.Measurement.Marshal(),
			CommandLine: r.commandLine(),
			Status:      MeasurementSeen, Source: SourceAttested, Machine: m.ID, Created: now,
		}}
	}
	if state.Platform == nil && state.SeenPlatforms < maxSeen {
		out.Platforms = []Platform{{
			Machine: m.ID, Digest: r.boot.Platform.Digest(), Claims: r.boot.Platform.Marshal(), Created: now,
		}}
	}
}

// commandLine returns the command line of this boot where the guest told it.
func (r *releasing) commandLine() string {
	return commandLineOf(r.boot.Measurement, r.details.CommandLine)
}

// releasesInWindow returns the clock values of recent releases of this reset.
func (r *releasing) releasesInWindow(m *Machine) []uint64 {
	if m.Counters.ResetCount != r.boot.Counters.ResetCount || r.boot.Counters.Since(m.Counters) == attest.Regression {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(m.Releases), func(clock uint64) bool {
		return clock+releaseWindow < r.boot.Counters.Clock
	})
}

func findVolume(volumes []Volume, id string) *Volume {
	i := slices.IndexFunc(volumes, func(v Volume) bool { return v.ID == id })
	if i < 0 {
		return nil
	}
	return &volumes[i]
}

func idsOf(volumes []exchange.Volume) []string {
	ids := make([]string, 0, len(volumes))
	for _, v := range volumes {
		ids = append(ids, v.ID)
	}
	return ids
}

func findAsked(volumes []exchange.Volume, id string) bool {
	return slices.ContainsFunc(volumes, func(v exchange.Volume) bool { return v.ID == id })
}
