package unlock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// Reencrypting gives a volume a new volume key, on a device that may be in use. It
// asks no service. It may be cut at any point and run again; from the step
// "begin-reencryption" on, until it has ended, cryptsetup alone opens the volume.
// All fields are required but those that say so.
type Reencrypting struct {
	Device string // path
	Volume string // id
	UUID   string // of the LUKS header, which stays
	// Identity is the identity digest of before.
	Identity [32]byte
	// Begun says that an earlier run may have ended it: then another identity is
	// the new one.
	Begun bool
	// Secret is the version that opens the volume, the only one in its header.
	Secret SecretVersion
	// Recovery is the recovery key; empty where the volume has none.
	Recovery secret.Bytes
	// Lose are the keyslots whose loss somebody agreed to, of those that
	// [Reencrypting.Lost] returns.
	Lose []exchange.LUKSSlot
	// Closed says that the volume is not open.
	Closed bool
	// Progress is told how far it has come, about once a second; nil: nobody is.
	Progress   func(luks.Progress)
	Cryptsetup luks.Cryptsetup
	RunDir     RunDir
	// Out receives a line "step: NAME DEVICE" before each step.
	Out io.Writer

	// under says that the header is under reencryption, and ended that it was.
	under, ended bool
}

// Reencrypted is what a volume became.
type Reencrypted struct {
	Identity [32]byte
	Report   exchange.VolumeReport
}

// ErrLoses is returned where keyslots would be lost whose loss nobody agreed to.
var ErrLoses = errors.New("a reencryption keeps the keyslots alone whose keys it is given")

// The steps of a reencryption that no other part has.
const (
	// StepKeys opens the keyslots that stay, and refuses to lose one that nobody
	// agreed to. Nothing was changed before.
	StepKeys Step = "check-keys"
	// StepKillLost kills the keyslots whose loss somebody agreed to, and what a
	// run left that was cut as it began.
	StepKillLost Step = "kill-lost-keyslots"
	// StepBeginReencryption changes the header alone.
	StepBeginReencryption Step = "begin-reencryption"
	// StepReencrypt changes the data.
	StepReencrypt Step = "reencrypt"
)

func (r *Reencrypting) steps(e *Enrollment) []step {
	return []step{
		{name: StepRead, once: r.read(e)},
		{name: StepKeys, each: r.unlessBegun(r.checkKeys)},
		{name: StepKillLost, each: r.unlessBegun(r.killLost)},
		{name: StepBeginReencryption, each: r.unlessBegun(r.begin)},
		{name: StepReencrypt, each: r.resume},
		{name: StepCheck, each: r.check},
	}
}

// ReencryptSteps returns the names of the steps of [Reencrypting.Run] in their
// order.
func ReencryptSteps() []Step { return namesOf(new(Reencrypting).steps(new(Enrollment))) }

// Run begins the reencryption, or goes on with it, to its end.
func (r *Reencrypting) Run(ctx context.Context) (Reencrypted, error) {
	e := &Enrollment{Devices: []Device{{Path: r.Device}}, Cryptsetup: r.Cryptsetup, RunDir: r.RunDir, Out: r.Out}
	unlock, err := e.lock()
	if err != nil {
		return Reencrypted{}, fmt.Errorf("reencrypting %s: %w", r.Device, err)
	}
	defer unlock()
	defer e.wipe()
	for _, s := range r.steps(e) {
		if err := e.perform(ctx, s); err != nil {
			return Reencrypted{}, fmt.Errorf("reencrypting %s (step %s): %w", r.Device, s.name, err)
		}
	}
	about, err := report(r.Volume, e.targets[0].volume)
	return Reencrypted{Identity: e.targets[0].identity, Report: about}, err
}

// Lost returns the keyslots that would be lost, such as a person's. It needs no
// keys, and changes nothing. Of a volume under reencryption there are none.
func (r *Reencrypting) Lost(ctx context.Context) ([]exchange.LUKSSlot, error) {
	e := &Enrollment{Devices: []Device{{Path: r.Device}}}
	defer e.wipe()
	if err := r.read(e)(ctx); err != nil {
		return nil, fmt.Errorf("looking for the keyslots that a reencryption of %s loses: %w", r.Device, err)
	}
	if r.under || r.ended {
		return nil, nil
	}
	return r.lost(e.targets[0])
}

// read reads the header and demands that it is the volume's.
func (r *Reencrypting) read(e *Enrollment) func(context.Context) error {
	return func(context.Context) error {
		r.under, r.ended = false, false
		if r.Closed {
			if err := checkUnused(r.Device); err != nil {
				return fail(CodeDevice, err)
			}
		}
		header, device, err := r.header()
		if err != nil {
			return fail(CodeDevice, err)
		}
		if r.under = header.Reencrypting(); r.under {
			e.targets = []*target{{path: r.Device, device: device}}
			return nil
		}
		_ = device.Close()
		if err := e.readDevices(); err != nil {
			return err
		}
		if r.ended = e.targets[0].identity != r.Identity; r.ended && !r.Begun {
			return fail(CodeDevice, fmt.Errorf("%s has the identity digest %x, want %x: it is not the volume that was enrolled", r.Device, e.targets[0].identity, r.Identity))
		}
		return nil
	}
}

func (r *Reencrypting) header() (*luks.Header, *os.File, error) {
	device, err := os.Open(r.Device)
	if err != nil {
		return nil, nil, err
	}
	header, err := luks.ReadDevice(device)
	if err == nil && header.UUID != r.UUID {
		err = fmt.Errorf("%s has the LUKS UUID %s, want %s", r.Device, header.UUID, r.UUID)
	}
	if err != nil {
		return nil, nil, errors.Join(err, device.Close())
	}
	return header, device, nil
}

func (r *Reencrypting) unlessBegun(each func(context.Context, *target) error) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		if r.under || r.ended {
			return nil
		}
		return each(ctx, t)
	}
}

// keys returns the keyslots that stay and their keys.
func (r *Reencrypting) keys(t *target) ([]luks.SlotKey, error) {
	tokens := t.tokensOf(r.Volume)
	if len(tokens) != 1 || tokens[0].Version != r.Secret.Number || len(tokens[0].Keyslots) != 1 {
		return nil, fail(CodeDevice, fmt.Errorf("%s has %d tokens for the secret of volume/%s, want one, of version %d with a keyslot: finish the rekey first", t.path, len(tokens), r.Volume, r.Secret.Number))
	}
	keys := []luks.SlotKey{{Slot: tokens[0].Keyslots[0], Key: r.Secret.Key}}
	recovery := t.volume.SlotsFor(r.Volume, luks.PurposeRecovery)
	switch {
	case len(recovery) == 0 && r.Recovery.Len() == 0:
		return keys, nil
	case len(recovery) == 1 && r.Recovery.Len() > 0:
		return append(keys, luks.SlotKey{Slot: recovery[0], Key: r.Recovery}), nil
	case len(recovery) == 0:
		return nil, fail(CodeDevice, fmt.Errorf("%s has no keyslot of a recovery key: add it first", t.path))
	default:
		return nil, fail(CodeDevice, fmt.Errorf("%s has the keyslots %v of recovery keys, one of which, with its key, is kept: kill the others first", t.path, recovery))
	}
}

// lost are the keyslots whose keys nobody has.
func (r *Reencrypting) lost(t *target) ([]exchange.LUKSSlot, error) {
	about, err := report(r.Volume, t.volume)
	if err != nil {
		return nil, err
	}
	stay := slices.Concat(t.volume.OwnSlots(r.Volume), t.volume.SlotsFor(r.Volume, luks.PurposeRecovery), t.volume.Leftover())
	return slices.DeleteFunc(about.Slots, func(s exchange.LUKSSlot) bool { return slices.Contains(stay, s.ID) }), nil
}

// checkKeys opens the keyslots that stay, and looks for those that do not.
func (r *Reencrypting) checkKeys(ctx context.Context, t *target) error {
	keys, err := r.keys(t)
	if err != nil {
		return err
	}
	if err := luks.CheckReencryptionKeys(keys); err != nil {
		return err
	}
	for _, k := range keys {
		if err := r.Cryptsetup.TestKey(ctx, t.path, k.Slot, k.Key); err != nil {
			return wrap(CodeOpen, err)
		}
	}
	lost, err := r.lost(t)
	if err != nil {
		return err
	}
	var unasked []string
	for _, s := range lost {
		agreed := func(a exchange.LUKSSlot) bool { return a.ID == s.ID && a.Mark == s.Mark }
		if !slices.ContainsFunc(r.Lose, agreed) {
			unasked = append(unasked, fmt.Sprintf("%d (%s, %s)", s.ID, s.KDF, s.Mark))
		}
	}
	if len(unasked) > 0 {
		return fail(CodeDevice, fmt.Errorf("%w: %s would lose %s", ErrLoses, t.path, strings.Join(unasked, ", ")))
	}
	return nil
}

// killLost kills what checkKeys found, each by the key that has opened another.
func (r *Reencrypting) killLost(ctx context.Context, t *target) error {
	lost, err := r.lost(t)
	if err != nil {
		return err
	}
	doomed := t.volume.Leftover()
	for _, s := range lost {
		doomed = append(doomed, s.ID)
	}
	for _, slot := range doomed {
		if err := r.Cryptsetup.KillSlot(ctx, t.path, slot, r.Secret.Key); err != nil {
			return err
		}
	}
	return t.reread()
}

func (r *Reencrypting) begin(ctx context.Context, t *target) error {
	keys, err := r.keys(t)
	if err != nil {
		return err
	}
	return r.Cryptsetup.BeginReencryption(ctx, t.path, keys)
}

func (r *Reencrypting) resume(ctx context.Context, t *target) error {
	if r.ended {
		return nil
	}
	resumption := luks.Resumption{Closed: r.Closed, Progress: r.Progress}
	err := r.Cryptsetup.ResumeReencryption(ctx, t.path, r.Secret.Key, resumption)
	if errors.Is(err, luks.ErrCut) && r.Closed {
		if err = r.Cryptsetup.RecoverReencryption(ctx, t.path, r.Secret.Key); err == nil {
			err = r.Cryptsetup.ResumeReencryption(ctx, t.path, r.Secret.Key, resumption)
		}
	}
	if errors.Is(err, luks.ErrCut) {
		return fail(CodeOpen, fmt.Errorf("a boot recovers it, which an open volume cannot be: reboot the machine: %w", err))
	}
	return wrap(CodeOpen, err)
}

// check demands a header that a boot opens, with another volume key, in whose
// keyslots the keys that stay open.
func (r *Reencrypting) check(_ context.Context, t *target) error {
	if err := t.read(); err != nil {
		return fail(CodeDevice, err)
	}
	identity, err := t.volume.Identity().Digest()
	if err != nil {
		return err
	}
	if identity == r.Identity {
		return fail(CodeDevice, fmt.Errorf("%s has the identity of before its reencryption", t.path))
	}
	t.identity = identity
	keys, err := r.keys(t)
	if err != nil {
		return err
	}
	for _, k := range keys {
		volumeKey, err := t.volume.Unseal(k.Slot, k.Key)
		volumeKey.Wipe()
		if err != nil {
			return fail(CodeOpen, err)
		}
	}
	return nil
}
