package unlock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// Leaving undoes what an [Enrollment] did to the running system: the client in
// the initramfs, the configuration, keyslots and tokens. It asks no service. All
// fields are required but Initramfs.
type Leaving struct {
	Devices []Device
	// Passphrase is that of [Enrollment]: it must open without us.
	Passphrase func(ctx context.Context, device string) (secret.Bytes, error)
	Cryptsetup luks.Cryptsetup
	ConfigPath string
	RunDir     RunDir
	// Initramfs takes the client out of the initramfs; nil where somebody else
	// makes that.
	Initramfs func(ctx context.Context) error
	// Out receives a line "step: NAME" before each step.
	Out io.Writer
}

// The steps of leaving that an enrolment has not. Whatever was cut, the machine
// boots: keyslots go last, when no boot asks for their keys any more.
const (
	StepUnconfigure Step = "remove-config"
	StepKillSlots   Step = "kill-keyslots"
)

// Run leaves, or goes on where it was interrupted. Nothing is changed before the
// passphrase has opened a keyslot that is not ours, on every volume of ours.
func (l *Leaving) Run(ctx context.Context) error {
	e := &Enrollment{
		Devices: l.Devices, Passphrase: l.Passphrase, Cryptsetup: l.Cryptsetup,
		ConfigPath: l.ConfigPath, RunDir: l.RunDir, Out: l.Out,
	}
	unlock, err := e.lock()
	if err != nil {
		return err
	}
	defer unlock()
	defer e.wipe()
	for _, s := range l.steps(e) {
		if err := e.perform(ctx, s); err != nil {
			return fmt.Errorf("leaving (step %s): %w", s.name, err)
		}
	}
	return e.forgetSet()
}

func (l *Leaving) steps(e *Enrollment) []step {
	return []step{
		{name: StepRead, once: e.readOwnVolumes},
		{name: StepPassphrase, each: e.findPassphrase},
		{name: StepUnconfigure, once: l.removeConfig},
		{name: StepInitramfs, once: l.leaveInitramfs},
		{name: StepKillSlots, each: e.killOwn},
	}
}

// LeavingSteps returns the names of all steps of leaving in their order.
func LeavingSteps() []Step { return namesOf(new(Leaving).steps(new(Enrollment))) }

// readOwnVolumes reads all volumes and keeps those that have a token of ours.
func (e *Enrollment) readOwnVolumes(ctx context.Context) error {
	if len(e.Devices) == 0 {
		return nil // what is left is outside of volumes
	}
	if err := e.readVolumes(ctx); err != nil {
		return err
	}
	var own []*target
	for _, t := range e.targets {
		if len(t.volume.OwnTokens()) > 0 {
			own = append(own, t)
			continue
		}
		_ = t.device.Close()
	}
	e.targets = own
	return nil
}

// killOwn removes every keyslot and token of ours from a volume.
func (e *Enrollment) killOwn(ctx context.Context, t *target) error {
	for _, token := range t.volume.OwnTokens() {
		e.tellOfKilling(t, token)
		e.tellOfOrphan(ctx, t, token)
		if err := t.drop(ctx, e.Cryptsetup, token); err != nil {
			return err
		}
	}
	return t.reread()
}

// tellOfKilling says before a keyslot is gone what opens no more.
func (e *Enrollment) tellOfKilling(t *target, token luks.OwnToken) {
	what := "which boots opened"
	if token.Purpose == luks.PurposeRecovery {
		what = "whose recovery key opens nothing from now on"
	}
	for _, slot := range token.Keyslots {
		e.say("note: killing keyslot %d of %s, %s", slot, t.path, what)
	}
}

// removeConfig removes the configuration that an enrolment wrote.
func (l *Leaving) removeConfig(context.Context) error {
	text, err := readBounded(l.ConfigPath, maxConfig)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !strings.HasPrefix(string(text), writtenBy+"\n"):
		return fmt.Errorf("%s: %w: remove it first", l.ConfigPath, ErrForeignConfig)
	}
	return removeDurably(l.ConfigPath)
}

func (l *Leaving) leaveInitramfs(ctx context.Context) error {
	if l.Initramfs == nil {
		return nil
	}
	return l.Initramfs(ctx)
}
