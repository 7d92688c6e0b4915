package unlock

import (
	"context"
	"errors"
	"fmt"
	"io"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// SecretVersion is one version of a volume's secret.
type SecretVersion struct {
	Number uint32 // from 1
	Key    secret.Bytes
}

// Rekeying puts the next version of a volume's secret into a keyslot of its own,
// and takes the former one away, on a device whose volume may be in use. It asks
// no service and keeps no state but what stands in the header: each of its parts
// may be cut at any point and run again.
//
// Up to [Rekeying.Finish] both versions open the volume, so that a boot opens
// whichever it is released. A keyslot is killed only where a token of ours says
// that it is ours, and by a key that has just opened another one. All fields are
// required but those that a part says it does without.
type Rekeying struct {
	Device string // path
	Volume string // id
	// Identity is the identity digest that the header must have.
	Identity [32]byte
	// Old is the current version and New the next one. The keys stay the
	// caller's to wipe.
	Old, New SecretVersion
	// Keep keeps a copy of the header from before the first change, as
	// [luks.Volume.HeaderCopy] reads it. It is called again where a run was cut
	// before anything was changed.
	Keep       func(ctx context.Context, header io.Reader) error
	Cryptsetup luks.Cryptsetup
	RunDir     RunDir
	// Out receives a line "step: NAME DEVICE" before each step.
	Out io.Writer

	// foreign are the marks of the keyslots that are not ours, as first read.
	foreign map[int]string
	stays   staying
}

// Rekeyed is what a header holds after a part of a rekey.
type Rekeyed struct {
	// Slot is the keyslot of the version that the part was about.
	Slot   int
	Report exchange.VolumeReport
}

// Add gives the new version a keyslot that has been opened with it, and takes
// away what versions other than the two left. The service may then commit.
func (r *Rekeying) Add(ctx context.Context) (Rekeyed, error) {
	if r.New.Number <= r.Old.Number {
		return Rekeyed{}, fmt.Errorf("rekeying %s: version %d of its secret does not follow version %d", r.Device, r.New.Number, r.Old.Number)
	}
	return r.carryOut(ctx, "adding a keyslot", r.addSteps)
}

// Finish leaves the new version as the only one, once the service has committed.
// It does without Old and Keep.
func (r *Rekeying) Finish(ctx context.Context) (Rekeyed, error) {
	return r.carryOut(ctx, "finishing", r.finishSteps)
}

// RollBack leaves the old version as the only one, where the service withdrew the
// new one. It does without New and Keep.
func (r *Rekeying) RollBack(ctx context.Context) (Rekeyed, error) {
	return r.carryOut(ctx, "rolling back", r.rollBackSteps)
}

// ErrHeaderBusy is returned when a header was changed by another program again
// and again.
var ErrHeaderBusy = errors.New("another program goes on changing the header: run this again when it has ended")

// carryOut runs the steps of a part; once more from the beginning where another
// program changed the header and one of them failed.
func (r *Rekeying) carryOut(ctx context.Context, doing string, steps func(*Enrollment) []step) (Rekeyed, error) {
	unlock, err := (&Enrollment{RunDir: r.RunDir}).lock()
	if err != nil {
		return Rekeyed{}, fmt.Errorf("rekeying %s: %w", r.Device, err)
	}
	defer unlock()
	done, moved, err := r.attempt(ctx, steps)
	if moved {
		r.say("note: another program changed the header of %s meanwhile: beginning again", r.Device)
		if done, moved, err = r.attempt(ctx, steps); moved {
			err = fmt.Errorf("%w: %w", ErrHeaderBusy, err)
		}
	}
	if err != nil {
		return Rekeyed{}, fmt.Errorf("rekeying %s: %s %w", r.Device, doing, err)
	}
	return done, nil
}

// attempt runs the steps once. Where one failed, moved tells that the header is
// no longer what this run left.
func (r *Rekeying) attempt(ctx context.Context, steps func(*Enrollment) []step) (done Rekeyed, moved bool, err error) {
	e := &Enrollment{Devices: []Device{{Path: r.Device}}, Cryptsetup: r.Cryptsetup, RunDir: r.RunDir, Out: r.Out}
	defer e.wipe()
	for _, s := range steps(e) {
		if err = e.perform(ctx, s); err != nil {
			return Rekeyed{}, ctx.Err() == nil && movedUnder(e.targets), fmt.Errorf("(step %s): %w", s.name, err)
		}
	}
	t := e.targets[0]
	if done.Report, err = report(r.Volume, t.volume); err != nil {
		return Rekeyed{}, false, err
	}
	_, done.Slot, err = t.slot(luks.PurposeBoot)
	return done, false, err
}

// movedUnder tells whether a header has another sequence number than when it was
// last read.
func movedUnder(targets []*target) bool {
	if len(targets) == 0 || targets[0].volume == nil {
		return false
	}
	now, err := luks.ReadDevice(targets[0].device)
	return err == nil && now.SequenceID != targets[0].volume.Header().SequenceID
}

func (r *Rekeying) say(format string, args ...any) {
	(&Enrollment{Out: r.Out}).say(format, args...)
}

// The steps of a rekey that an enrolment has not.
const (
	// StepSecret opens a keyslot that our tokens name. Nothing was changed before.
	StepSecret Step = "check-secret"
	// StepKeepHeader hands out the copy of the header.
	StepKeepHeader Step = "keep-header"
	// StepPriority gives the new keyslot the priority of the old one.
	StepPriority Step = "copy-priority"
	// StepKillOthers kills the keyslots of the versions that do not stay, and
	// StepForgetOthers removes their tokens.
	StepKillOthers   Step = "kill-other-versions"
	StepForgetOthers Step = "forget-other-versions"
	// StepCheck holds the header against what it should have become.
	StepCheck Step = "check-header"
)

func (r *Rekeying) addSteps(e *Enrollment) []step {
	return []step{
		{name: StepRead, once: r.read(e)},
		{name: StepSecret, each: r.findBoth},
		{name: StepKeepHeader, each: r.keepHeader},
		{name: StepClean, each: r.clean},
		{name: StepToken, each: r.writeToken(e)},
		{name: StepKeyslot, each: of(luks.PurposeBoot, e.addKeyslot)},
		{name: StepTest, each: of(luks.PurposeBoot, e.testKeyslot)},
		{name: StepPriority, each: r.copyPriority},
		{name: StepAssign, each: of(luks.PurposeBoot, e.assignToken)},
		{name: StepCheck, each: r.checkForeign},
	}
}

func (r *Rekeying) finishSteps(e *Enrollment) []step {
	return r.settleSteps(e, r.New, r.refuseLater)
}

func (r *Rekeying) rollBackSteps(e *Enrollment) []step {
	return r.settleSteps(e, r.Old, func(*target) error { return nil })
}

// settleSteps leave one version as the only one.
func (r *Rekeying) settleSteps(e *Enrollment, stays SecretVersion, refuse func(*target) error) []step {
	return []step{
		{name: StepRead, once: r.read(e)},
		{name: StepSecret, each: r.findOne(stays, refuse)},
		{name: StepClean, each: r.cleanVersion(stays.Number)},
		{name: StepAssign, each: of(luks.PurposeBoot, e.assignToken)},
		{name: StepKillOthers, each: r.killOthers},
		{name: StepForgetOthers, each: r.forgetOthers},
		{name: StepTest, each: of(luks.PurposeBoot, e.testKeyslot)},
		{name: StepCheck, each: r.checkSettled},
	}
}

// RekeySteps returns the names of the steps of [Rekeying.Add] and of
// [Rekeying.Finish], which [Rekeying.RollBack] has too, in their order.
func RekeySteps() (add, settle []Step) {
	r, e := new(Rekeying), new(Enrollment)
	return namesOf(r.addSteps(e)), namesOf(r.finishSteps(e))
}

// notOurs says that no token binds the device to the volume.
func (r *Rekeying) notOurs() error {
	return fail(CodeNotEnrolled, fmt.Errorf("no token says that %s is volume/%s", r.Device, r.Volume))
}

// noSecret says that a key opens nothing that is ours. The key is right where
// the service is: the header is of another time, or somebody changed it.
func (r *Rekeying) noSecret(versions string) error {
	return fail(CodeOpen, fmt.Errorf("%s of the secret of volume/%s opens no keyslot of %s that our tokens name: %w", versions, r.Volume, r.Device, luks.ErrWrongKey))
}
