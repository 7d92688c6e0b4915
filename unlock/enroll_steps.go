package unlock

import (
	"context"
	"fmt"

	"keywright.dev/unlock/luks"
)

// Step names a step of an enrolment.
type Step string

// The steps, in their order. What an interrupted step leaves behind, the next
// run finishes or removes.
const (
	// StepRead reads and validates every header.
	StepRead Step = "read-volumes"
	// StepPassphrase finds a passphrase for every volume. Nothing was changed
	// before.
	StepPassphrase Step = "check-passphrase"
	// StepPredict computes what the next boot will measure.
	StepPredict Step = "predict-boot"
	// StepBegin proves to the service that EK and AK share a TPM.
	StepBegin Step = "begin"
	// StepComplete gets a secret for every volume.
	StepComplete Step = "complete"
	// StepClean removes what an earlier enrolment left.
	StepClean Step = "clean"
	// StepToken writes tokens that name no keyslot yet, on all volumes before
	// any keyslot is added: so every keyslot of ours has a token from which the
	// enrolment can be taken up again.
	StepToken Step = "write-token"
	// StepRecord records which volumes the enrolment has, so that it is taken up
	// again with these alone.
	StepRecord Step = "record-volumes"
	// StepKeyslot adds keyslots.
	StepKeyslot Step = "add-keyslot"
	// StepTest opens each keyslot, with cryptsetup and as a boot will.
	StepTest Step = "test-keyslot"
	// StepAssign has the tokens name their keyslots.
	StepAssign Step = "assign-token"
	// StepRecoveryToken, StepRecoveryKeyslot, StepRecoveryTest and
	// StepRecoveryAssign do for the recovery keys what the four above do for the
	// secrets of boots.
	StepRecoveryToken   Step = "write-recovery-token"
	StepRecoveryKeyslot Step = "add-recovery-keyslot"
	StepRecoveryTest    Step = "test-recovery-keyslot"
	StepRecoveryAssign  Step = "assign-recovery-token"
	// StepConfig writes the configuration.
	StepConfig Step = "write-config"
	// StepInitramfs has the initramfs of the next boot ask for the keys, and
	// computes anew what that boot will measure.
	StepInitramfs Step = "update-initramfs"
	// StepCommit tells the service that the keyslots are in place.
	StepCommit Step = "commit"
)

// step is done once, or for each volume.
type step struct {
	name Step
	once func(context.Context) error
	each func(context.Context, *target) error
}

func (e *Enrollment) steps() []step {
	steps := []step{
		{name: StepRead, once: e.readVolumes},
		{name: StepPassphrase, each: e.findPassphrase},
		{name: StepPredict, once: e.predictBoot},
		{name: StepBegin, once: e.begin},
		{name: StepComplete, once: e.complete},
		{name: StepClean, each: e.clean},
		{name: StepToken, each: of(luks.PurposeBoot, e.writeToken)},
		{name: StepRecord, once: e.recordSet},
		{name: StepKeyslot, each: of(luks.PurposeBoot, e.addKeyslot)},
		{name: StepTest, each: of(luks.PurposeBoot, e.testKeyslot)},
		{name: StepAssign, each: of(luks.PurposeBoot, e.assignToken)},
	}
	return append(append(steps, e.recoverySteps()...),
		step{name: StepConfig, once: e.writeConfig},
		step{name: StepInitramfs, once: e.updateInitramfs},
		step{name: StepCommit, once: e.commit})
}

// recoverySteps give each volume a keyslot that its recovery key opens.
func (e *Enrollment) recoverySteps() []step {
	if e.NoRecoveryKey {
		return nil
	}
	return []step{
		{name: StepRecoveryToken, each: of(luks.PurposeRecovery, e.writeToken)},
		{name: StepRecoveryKeyslot, each: of(luks.PurposeRecovery, e.addKeyslot)},
		{name: StepRecoveryTest, each: of(luks.PurposeRecovery, e.testKeyslot)},
		{name: StepRecoveryAssign, each: of(luks.PurposeRecovery, e.assignToken)},
	}
}

// Steps returns the names of all steps in their order.
func Steps() []Step { return namesOf(new(Enrollment).steps()) }

func namesOf(steps []step) []Step {
	var names []Step
	for _, s := range steps {
		names = append(names, s.name)
	}
	return names
}

func (e *Enrollment) perform(ctx context.Context, s step) error {
	if s.once != nil {
		e.say("step: %s", s.name)
		return s.once(ctx)
	}
	for _, t := range e.targets {
		e.say("step: %s %s", s.name, t.path)
		if err := s.each(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", t.path, err)
		}
	}
	return ctx.Err()
}
