package kms

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// StagedFor is how long the platform sets that a machine stages are approved. It
// stages them anew each day; what it booted last with its keys does not expire.
const StagedFor = 30 * 24 * time.Hour

// Staged is the answer to a machine that announced its next boots.
type Staged struct {
	// Until is when the approval of what was staged ends; zero where the machine
	// only asked.
	Until time.Time
	Boots []StagedBoot // in the order in which they were announced
}

// StagedBoot is what would become of a boot.
type StagedBoot struct {
	Measurement, Platform [32]byte
	// Refusal is why it would get no keys; nil where it would.
	Refusal *Refusal
}

// Stage lets a running system announce the boots that can follow its own. Of a
// boot, what names the machine is approved by it, for this machine alone and for
// a time: a system that has its keys of this boot could hand them to the next one
// anyway. What machines of a group share waits for an operator.
func (s *Service) Stage(ctx context.Context, a Attested) (Staged, error) {
	g, err := s.beginStage(ctx, a)
	if err != nil {
		return Staged{}, s.unproven(err, a.Source)
	}
	key := Key{Machine: a.Machine, Challenge: &g.redemption.Challenge, Announced: true}
	if g.refusal == nil {
		key.Measurements = g.measurements()
	}
	if err := s.transact(ctx, key, g.decide); err != nil {
		return Staged{}, err
	}
	return g.result, nil
}

// staging is one announcement under way.
type staging struct {
	*verified
	service    *Service
	attested   Attested
	redemption Redemption
	details    exchange.StageDetails
	boots      []announced
	result     Staged
}

// announced is a boot with what its files lead to, or why they lead to nothing.
type announced struct {
	measurement claims.Set
	platform    *claims.Set // nil where they do not lead to one
	commandLine string
	refusal     *Refusal
}

func (s *Service) beginStage(ctx context.Context, a Attested) (*staging, error) {
	v, redemption, err := s.verifyKnown(ctx, exchange.PurposeStage, &a)
	if err != nil {
		return nil, err
	}
	g := &staging{verified: v, service: s, attested: a, redemption: redemption}
	if g.refusal == nil {
		g.refusal = g.readDetails()
	}
	return g, nil
}

// readDetails lays what the files of each boot lead to over the running one.
func (g *staging) readDetails() *Refusal {
	details, err := exchange.ParseDetails[exchange.StageDetails](g.statement.Details)
	faults := []string{details.Fault}
	for _, next := range details.Boots {
		faults = append(faults, next.Unknown)
	}
	if err != nil || slices.ContainsFunc(faults, func(f string) bool { return len(f) > exchange.MaxFault || !printable(f) }) {
		return refuse(ReasonMalformed, "the details of the statement cannot be parsed")
	}
	if n := len(details.Boots); n == 0 || n > exchange.MaxBoots {
		return refuse(ReasonMalformed, "the statement names %d boots, want 1 to %d", n, exchange.MaxBoots)
	}
	g.details = details
	for _, next := range details.Boots {
		g.boots = append(g.boots, g.successor(next))
	}
	return nil
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

func (g *staging) successor(next exchange.NextBoot) announced {
	if len(next.Files) > 0 {
		return g.predicted(next.Files)
	}
	return announced{
		measurement: g.boot.Measurement, platform: &g.boot.Platform,
		commandLine: commandLineOf(g.boot.Measurement, g.details.CommandLine),
	}
}

// predicted lays what a boot's files lead to over the attested boot.
func (v *verified) predicted(text []byte) (next announced) {
	files, err := claims.Parse(text)
	if err != nil {
		return announced{refusal: refuse(ReasonMalformed, "the claims of the next boot cannot be parsed")}
	}
	unpredicted := func(err error) announced {
		next.refusal = refuse(ReasonMeasurement, "the next boot cannot be predicted: %v", err)
		return next
	}
	platform, err := claims.PlatformSuccessor(v.boot.Platform, files)
	if err != nil {
		return unpredicted(err)
	}
	if next.refusal = checkSize(platform); next.refusal != nil {
		return next
	}
	next.platform = &platform
	if next.measurement, err = claims.Successor(v.boot.Measurement, files); err != nil {
		return unpredicted(err)
	}
	next.commandLine = commandLineOfFiles(next.measurement, files)
	next.refusal = checkSize(next.measurement)
	return next
}

// foreseen returns the boots that files lead to.
func (g *staging) foreseen() []announced {
	return slices.DeleteFunc(slices.Clone(g.boots), func(b announced) bool { return b.refusal != nil })
}

// platforms returns the platform sets that files lead to: also of boots of which
// the group's part is not known before one of them.
func (g *staging) platforms() []*claims.Set {
	var list []*claims.Set
	for _, b := range g.boots {
		if b.platform != nil {
			list = append(list, b.platform)
		}
	}
	return list
}

// unforeseen tells whether the first boot cannot be predicted. The one that was
// announced before stays the one expected then, with what is known of it.
func (g *staging) unforeseen() bool { return g.boots[0].refusal != nil }

// measurements returns the digests of the running boot and of those announced,
// each once.
func (g *staging) measurements() [][32]byte {
	digests := [][32]byte{g.boot.Measurement.Digest()}
	for _, b := range g.foreseen() {
		if d := b.measurement.Digest(); !slices.Contains(digests, d) {
			digests = append(digests, d)
		}
	}
	return digests
}

// decide is the decision about one announcement. Only asking leaves nothing but
// the challenge spent.
func (g *staging) decide(state State) (Outcome, *Refusal, error) {
	if state.Machine == nil || !bytes.Equal(state.Machine.AK, g.ak.Public) {
		return Outcome{}, nil, fmt.Errorf("deciding what was announced: the machine changed meanwhile: %w", ErrUnavailable)
	}
	d := machineDraft(ActionStage, &g.attested)
	if state.Redeemed {
		return g.service.refused(Outcome{}, d, refuseReplay())
	}
	out := Outcome{Redeem: &g.redemption}
	refusal := g.judge(&state, &d)
	if refusal == nil && !g.details.Check {
		refusal = g.stage(&out, &state)
	}
	if refusal != nil {
		return g.service.refused(Outcome{Redeem: &g.redemption}, d, refusal)
	}
	g.tell(&out, &state)
	if g.details.Check {
		return out, nil, nil
	}
	m := state.Machine
	d.fact("measurement", hexDigest(m.Expected), hexDigest(out.Machine.Expected))
	d.fact("platform", hexDigest(m.ExpectedPlatform), hexDigest(out.Machine.ExpectedPlatform))
	for _, p := range out.Platforms {
		d.fact("platform.staged", "", hexDigest(p.Digest))
	}
	if out.Machine.Fault != m.Fault {
		d.fact("fault", m.Fault, out.Machine.Fault)
	}
	out, err := g.service.entered(out, d, audit.Allowed, nil)
	return out, nil, err
}

// judge wants a system that had its keys from here in this very boot, and whose
// boot is still approved.
func (g *staging) judge(state *State, d *draft) *Refusal {
	if refusal := g.judgeReleased(state, d); refusal != nil {
		return refusal
	}
	return g.judgePolicy(state, d)
}

// judgeReleased wants an active machine whose running system had its keys from
// here in this very boot, and a good statement of it.
func (v *verified) judgeReleased(state *State, d *draft) *Refusal {
	m := state.Machine
	if refusal := judgeStatus(m.Status); refusal != nil {
		return refusal
	}
	if v.boot.Counters.Since(m.Counters) == attest.Regression {
		d.fact("tpm.counters", formatCounters(m.Counters), formatCounters(v.boot.Counters))
		return refuse(ReasonCounters, "the TPM's counters went back: a copied vTPM, a restored snapshot, or a cleared TPM")
	}
	if v.refusal != nil {
		return v.refusal
	}
	if released := exchange.Extend([32]byte{}, exchange.ReleaseEvent(m.Release[:])); m.Release == [32]byte{} || v.boot.PCR15 != released {
		return refuse(ReasonUnreleased, "PCR 15 does not show this machine's last release: the running system did not get its keys from here, or something extended PCR 15 since")
	}
	return nil
}

// judgePolicy asks the policy whether the running boot may stage others.
func (g *staging) judgePolicy(state *State, d *draft) *Refusal {
	boot := g.policyBoot(&g.attested, g.service.Clock())
	boot.PlatformApproved = findPlatform(state.Platforms, g.boot.Platform.Digest()).approvedFor(state.Machine, g.service.Clock())
	return judgeRunning(state, boot, Policy.Stage, g.service.Policy(), d)
}

// stage writes what the machine announced in the place of what it did before.
func (g *staging) stage(out *Outcome, state *State) *Refusal {
	m, now := *state.Machine, g.service.Clock()
	g.stagePlatforms(out, state, now.Add(StagedFor))
	if !g.stageMeasurements(out, state) {
		return refuse(ReasonRate, "%d boots of the machine wait for an operator already: approve or dismiss one of them", maxSeen)
	}
	m.settle(approvedAt(state.Measurements, g.boot.Measurement.Digest()))
	m.Counters, m.Announced = g.boot.Counters, now
	if first := g.boots[0]; !g.unforeseen() {
		m.Expected, m.ExpectedPlatform = first.measurement.Digest(), first.platform.Digest()
	}
	out.Machine = &m
	g.result.Until = now.Add(StagedFor)
	return nil
}

func (g *staging) stagePlatforms(out *Outcome, state *State, until time.Time) {
	keep := [][32]byte{g.boot.Platform.Digest(), state.Machine.Platform}
	if g.unforeseen() {
		keep = append(keep, state.Machine.ExpectedPlatform)
	}
	others := len(keep)
	for _, p := range g.platforms() {
		digest := p.Digest()
		if slices.Contains(keep[others:], digest) {
			continue
		}
		keep = append(keep, digest)
		row := Platform{Machine: state.Machine.ID, Digest: digest, Claims: p.Marshal(), Created: g.service.Clock()}
		if known := findPlatform(state.Platforms, digest); known != nil {
			if known.Approved && known.Expires.IsZero() {
				continue
			}
			row = *known
		}
		row.Approved, row.Expires = true, until
		out.Platforms = append(out.Platforms, row)
	}
	for _, p := range state.Platforms {
		if !p.Expires.IsZero() && !slices.Contains(keep, p.Digest) {
			out.DropPlatforms = append(out.DropPlatforms, p.Digest)
		}
	}
}

// stageMeasurements keeps what an operator has to look at; false where that is
// more than is kept for one machine.
func (g *staging) stageMeasurements(out *Outcome, state *State) bool {
	m := state.Machine
	for _, b := range g.foreseen() {
		digest := b.measurement.Digest()
		if findMeasurement(state.Measurements, digest) == nil && findMeasurement(out.Measurements, digest) == nil {
			out.Measurements = append(out.Measurements, Measurement{
				Digest: digest, Group: m.Group, Claims: b.measurement.Marshal(), CommandLine: b.commandLine,
				Status: MeasurementSeen, Source: SourcePredicted, Machine: m.ID, Created: g.service.Clock(),
			})
		}
	}
	for _, row := range state.Predicted {
		if g.unforeseen() && row.Digest == m.Expected && row.Group == m.Group {
			continue
		}
		if row.Group != m.Group || findMeasurement(state.Measurements, row.Digest) == nil {
			out.DropMeasurements = append(out.DropMeasurements, row)
		}
	}
	return state.SeenMeasurements-len(out.DropMeasurements)+len(out.Measurements) <= maxSeen
}

// tell says of each boot what would become of it, and keeps of the first what no
// approval mends.
func (g *staging) tell(out *Outcome, state *State) {
	g.result.Boots = nil
	var spare draft
	fault := judgeVolumes(g.statement.Volumes, func(volume string) []byte { return becomesOf(g.details.Volumes, volume) }, state, &spare)
	if fault == nil && g.details.Fault != "" {
		fault = refuse(ReasonVolume, "the machine says: %s", g.details.Fault)
	}
	for _, b := range g.boots {
		boot := StagedBoot{Refusal: b.refusal}
		if b.refusal == nil {
			boot = StagedBoot{b.measurement.Digest(), b.platform.Digest(), fault}
		}
		if boot.Refusal == nil {
			boot.Refusal = g.foresee(b, state)
		}
		g.result.Boots = append(g.result.Boots, boot)
	}
	if out.Machine != nil {
		out.Machine.Fault, out.Machine.Unforeseen = g.lasting(), false
		if unknown := g.details.Boots[0].Unknown; unknown != "" && out.Machine.Fault == "" {
			out.Machine.Fault, out.Machine.Unforeseen = unknown, true
		}
	}
}

// lasting returns what of the first boot no approval mends.
func (g *staging) lasting() string {
	first := g.result.Boots[0].Refusal
	if first == nil || g.boots[0].refusal == nil && first.Reason != ReasonVolume && first.Reason != ReasonPolicy {
		return ""
	}
	return first.Detail
}

// foresee judges a boot as [Service.Release] will.
func (g *staging) foresee(b announced, state *State) *Refusal {
	m, now := state.Machine, g.service.Clock()
	boot := g.policyBoot(&g.attested, now)
	boot.Measurement, boot.Platform = b.measurement, *b.platform
	matchMeasurement(&boot, state)
	boot.PlatformApproved = !g.details.Check || findPlatform(state.Platforms, b.platform.Digest()).approvedFor(m, now)
	decision, _ := releases(g.service.Policy(), m, g.statement.Volumes, boot)
	switch {
	case decision.Allowed:
		return nil
	case !boot.Approved:
		return refuse(ReasonMeasurement, "its measurement %s", unapproved(state.Measurements, b.measurement.Digest(), m.Group))
	case !boot.PlatformApproved:
		return refuse(ReasonPlatform, "its platform claims are neither approved for the machine nor staged by it")
	default:
		return refuse(ReasonPolicy, "%s", decision)
	}
}

// stagedPlatforms returns the digests of those that no operator approved.
func stagedPlatforms(rows []Platform) [][32]byte {
	var staged [][32]byte
	for _, p := range rows {
		if !p.Expires.IsZero() {
			staged = append(staged, p.Digest)
		}
	}
	return staged
}

func findPlatform(rows []Platform, digest [32]byte) *Platform {
	i := slices.IndexFunc(rows, func(p Platform) bool { return p.Digest == digest })
	if i < 0 {
		return nil
	}
	return &rows[i]
}
