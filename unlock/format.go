package unlock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// The steps of formatting that an addition has not.
const (
	// StepBlank refuses a disk that holds anything.
	StepBlank Step = "check-blank"
	// StepFormat writes a LUKS2 header, with a key that is nowhere but in memory.
	StepFormat Step = "luks-format"
	// StepKillFirst kills the keyslot of that key.
	StepKillFirst Step = "kill-first-keyslot"
	// StepFinish takes the mark off the header that lets a format begin anew.
	StepFinish Step = "finish-format"
	// StepOpen opens the volume.
	StepOpen Step = "open-volume"
)

// formatMark is the subsystem text of a header whose volume nobody can have
// opened yet.
const formatMark = "keywright-format"

// firstSlot is the keyslot that the header is made with, firstKey the length of
// its key.
const (
	firstSlot = 0
	firstKey  = 32
)

// Format makes a blank disk a volume of the machine, or takes up a format that
// was interrupted. Devices names the one disk. Passphrase is not asked for: the
// service's secret and the recovery key, unless it is left out, are the only keys
// in the end.
//
// The header carries a mark until the service counts the volume, and no
// configuration names it before: a disk with the mark holds nothing, so that a
// format whose first key is lost begins anew.
func (e *Enrollment) Format(ctx context.Context) (Enrolled, error) {
	e.adding = true
	result, err := e.carryOut(ctx, "formatting", e.formattingSteps())
	if errors.Is(err, errAnew) && !e.anew {
		e.say("note: the format that was interrupted cannot be finished: it begins anew")
		e.anew, e.targets = true, nil
		result, err = e.carryOut(ctx, "formatting", e.formattingSteps())
	}
	if err != nil {
		return Enrolled{}, err
	}
	return result, e.forgetAdding()
}

func (e *Enrollment) formattingSteps() []step {
	local := e.localSteps()
	return slices.Concat(
		[]step{
			{name: StepBlank, once: e.checkDisk},
			{name: StepFormat, once: e.format},
			{name: StepRead, once: e.readFormatted},
		},
		e.bindingSteps(e.keepOrBeginAnew),
		[]step{{name: StepKillFirst, each: e.unlessReceived(e.killFirst)}},
		local[:1],
		[]step{{name: StepFinish, each: e.finishFormat}},
		local[1:],
		[]step{{name: StepOpen, each: e.unlessReceived(e.openFormatted)}},
	)
}

// FormattingSteps returns the names of all steps of [Enrollment.Format] in their
// order.
func FormattingSteps() []Step { return namesOf(new(Enrollment).formattingSteps()) }

// errAnew means that the disk holds a format that can never be finished.
var errAnew = errors.New("its first key is lost, and the service's opens no keyslot yet")

// checkDisk tells a blank disk, or one that was begun, from one that holds
// anything.
func (e *Enrollment) checkDisk(ctx context.Context) error {
	if len(e.Devices) != 1 {
		return fail(CodeDevice, errors.New("one disk is formatted at a time"))
	}
	err := e.writable()
	if err == nil {
		e.begun, err = e.begunOn(e.Devices[0].Path)
	}
	if err == nil && (e.begun == nil || e.begun.Subsystem == formatMark) {
		err = checkUnused(e.Devices[0].Path)
	}
	if err == nil && e.begun == nil {
		err = checkBlank(ctx, e.Devices[0].Path)
	}
	return wrap(CodeDevice, err)
}

// begunOn returns the header that an interrupted format left on a disk; nil
// where there is none.
func (e *Enrollment) begunOn(path string) (*luks.Header, error) {
	if err := checkKind(path); err != nil {
		return nil, err
	}
	device, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer device.Close()
	header, err := luks.ReadDevice(device)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // what it is instead, the blank check says
	}
	if header.Subsystem == formatMark {
		return header, nil
	}
	adding, err := readList(e.addingPath(), addingHead)
	if err != nil {
		return nil, err
	}
	if slices.Contains(adding, header.UUID) {
		return header, nil
	}
	for _, v := range e.Config.Volumes {
		if uuid, ok := v.UUID(); ok && uuid == header.UUID {
			return nil, fmt.Errorf("%s is enrolled already: a boot opens it as %s", path, v.Name)
		}
	}
	return nil, nil //nolint:nilnil // somebody else's
}

// format makes the header, unless an interrupted format may be gone on with: by
// the service's secret, for the first key is lost.
func (e *Enrollment) format(ctx context.Context) error {
	if e.begun != nil && (e.begun.Subsystem != formatMark || !e.anew && hasOwnSlot(e.begun)) {
		return nil
	}
	if e.begun != nil {
		if err := e.forget([]string{e.begun.UUID}); err != nil {
			return err
		}
	}
	key, err := secret.Random(rand.Reader, firstKey)
	if err != nil {
		return fmt.Errorf("making the first key: %w", err)
	}
	e.first = key
	return e.Cryptsetup.Format(ctx, e.Devices[0].Path, formatMark, key)
}

// hasOwnSlot tells whether a header has a keyslot that may be ours.
func hasOwnSlot(h *luks.Header) bool {
	v, err := h.Validate()
	if err != nil {
		return false
	}
	t := target{volume: v}
	return slices.ContainsFunc(t.bootTokens(), t.hasSlotOf)
}

// readFormatted reads the header that was made, as a boot will.
func (e *Enrollment) readFormatted(ctx context.Context) error {
	if err := e.readAdded(ctx); err != nil {
		return err
	}
	e.targets[0].passphrase, e.first = e.first, secret.Bytes{}
	return nil
}

// keepOrBeginAnew goes on with a keyslot that the service's secret opens, and
// removes what else an interrupted format left. Where the secret opens none and
// the first key is lost, no key is left.
func (e *Enrollment) keepOrBeginAnew(ctx context.Context, t *target) error {
	if t.passphrase.Len() > 0 {
		return nil // the header is of this run
	}
	tokens := t.bootTokens()
	current := len(tokens) == 1 && t.hasSlotOf(tokens[0])
	if current {
		var err error
		if current, err = e.isCurrent(ctx, t, tokens[0]); err != nil {
			return err
		}
	}
	switch {
	case current:
		t.passphrase = t.secret.Key.Clone()
		return e.clean(ctx, t)
	case t.volume.Header().Subsystem == formatMark:
		return errAnew
	default:
		return fmt.Errorf("the secret of the service opens no keyslot of %s", t.path)
	}
}

// bootTokens are the tokens of keyslots that boots open.
func (t *target) bootTokens() []luks.OwnToken {
	return slices.DeleteFunc(t.volume.OwnTokens(), func(token luks.OwnToken) bool { return token.Purpose != luks.PurposeBoot })
}

func (t *target) hasSlotOf(token luks.OwnToken) bool {
	return len(token.Keyslots) > 0 || t.hasSlot(token.Slot)
}

// killFirst leaves the keys that the service has as the only ones; cryptsetup
// tries that of boots first.
func (e *Enrollment) killFirst(ctx context.Context, t *target) error {
	named := func(token luks.InventoryToken) bool { return slices.Contains(token.Keyslots, firstSlot) }
	if t.volume.Header().Subsystem != formatMark || !t.hasSlot(firstSlot) || slices.ContainsFunc(t.volume.Inventory().Tokens, named) {
		return nil
	}
	if err := e.Cryptsetup.KillSlot(ctx, t.path, firstSlot, t.secret.Key); err != nil {
		return err
	}
	return t.reread()
}

// finishFormat says in the header that the volume may hold data from now on.
func (e *Enrollment) finishFormat(ctx context.Context, t *target) error {
	if t.volume.Header().Subsystem != formatMark {
		return nil
	}
	if err := e.Cryptsetup.SetSubsystem(ctx, t.path, ""); err != nil {
		return err
	}
	return t.reread()
}

// openFormatted opens the volume as a boot will, so that a file system can be
// made on it.
func (e *Enrollment) openFormatted(ctx context.Context, t *target) error {
	v := Volume{
		Config: VolumeConfig{Device: "UUID=" + t.uuid(), Name: t.mapping()},
		ID:     t.secret.Volume, Slots: t.volume.OwnSlots(t.secret.Volume),
		Identity: t.identity, LUKS: t.volume, Device: t.device,
	}
	if table, err := luks.ReadTableOf("/dev/mapper/" + v.Config.Name); err == nil && v.LUKS.Check(table) == nil {
		return nil // an earlier run did
	}
	volumeKey, err := Unseal(ctx, v, t.secret.Key)
	if err != nil {
		return err
	}
	defer volumeKey.Wipe()
	_, err = e.Opener.Open(ctx, v, volumeKey)
	return err
}
