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
	// Recovery is the recovery key that the volume is to have, in the place of any
	// before; without a key where it has none. One that has begun needs none.
	Recovery SecretVersion
	// Lose are the keyslots whose loss somebody agreed to, such as a person's.
	Lose []exchange.LUKSSlot
	// Closed says that the volume is not open.
	Closed bool
	// Tell is told at each stage what the header is then, before anything of the next
	// is done, which an error keeps from being done; nil: nobody is.
	Tell func(ctx context.Context, stage exchange.Stage, v exchange.Volume, about exchange.VolumeReport) error
	// Progress is told how far it has come, about once a second; nil: nobody is.
	Progress func(luks.Progress)
	// Rate is the most bytes in a second, on average; 0: as fast as it goes. Clock is
	// what it is measured by, and not needed without.
	Rate       uint64
	Clock      Clock
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
	// StepKeys opens the keyslot that stays, and refuses to lose one that nobody
	// agreed to. Nothing was changed before.
	StepKeys Step = "check-keys"
	// StepReportReady reports that the keyslots that stay are there.
	StepReportReady Step = "report-ready"
	// StepKillLost kills the keyslots whose loss somebody agreed to, that of the
	// recovery key before, and what a run left that was cut as it began.
	StepKillLost Step = "kill-lost-keyslots"
	// StepBeginReencryption changes the header alone.
	StepBeginReencryption Step = "begin-reencryption"
	// StepReportBegun reports what the header has become.
	StepReportBegun Step = "report-begun"
	// StepReencrypt changes the data.
	StepReencrypt Step = "reencrypt"
)

func (r *Reencrypting) steps(e *Enrollment) []step {
	return []step{
		{name: StepRead, once: r.read(e)},
		{name: StepKeys, each: r.unlessBegun(r.checkKeys)},
		{name: StepClean, each: r.recovering(r.cleanRecovery)},
		{name: StepRecoveryToken, each: r.recovering(of(luks.PurposeRecovery, e.writeToken))},
		{name: StepRecoveryKeyslot, each: r.recovering(of(luks.PurposeRecovery, e.addKeyslot))},
		{name: StepRecoveryTest, each: r.recovering(of(luks.PurposeRecovery, e.testKeyslot))},
		{name: StepRecoveryAssign, each: r.recovering(of(luks.PurposeRecovery, e.assignToken))},
		{name: StepReportReady, each: r.unlessBegun(r.tellReady)},
		{name: StepKillLost, each: r.unlessBegun(r.killLost)},
		{name: StepBeginReencryption, each: r.unlessBegun(r.begin)},
		{name: StepReportBegun, each: r.tellBegun},
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

// ownSlot returns the keyslot of the secret.
func (r *Reencrypting) ownSlot(t *target) (luks.SlotKey, error) {
	tokens := t.tokensOf(r.Volume)
	if len(tokens) != 1 || tokens[0].Version != r.Secret.Number || len(tokens[0].Keyslots) != 1 {
		return luks.SlotKey{}, fail(CodeDevice, fmt.Errorf("%s has %d tokens for the secret of volume/%s, want one, of version %d with a keyslot: finish the rekey first", t.path, len(tokens), r.Volume, r.Secret.Number))
	}
	return luks.SlotKey{Slot: tokens[0].Keyslots[0], Key: r.Secret.Key}, nil
}

// keys returns the keyslots that stay and their keys.
func (r *Reencrypting) keys(t *target) ([]luks.SlotKey, error) {
	own, err := r.ownSlot(t)
	if err != nil {
		return nil, err
	}
	recovery := t.volume.SlotsFor(r.Volume, luks.PurposeRecovery)
	switch {
	case len(recovery) == 0 && !r.recovers():
		return []luks.SlotKey{own}, nil
	case len(recovery) == 1 && r.recovers():
		return []luks.SlotKey{own, {Slot: recovery[0], Key: r.Recovery.Key}}, nil
	case len(recovery) == 0:
		return nil, fail(CodeDevice, fmt.Errorf("%s has no keyslot of a recovery key: add it first", t.path))
	default:
		return nil, fail(CodeDevice, fmt.Errorf("%s has the keyslots %v of recovery keys, one of which, with its key, is kept: kill the others first", t.path, recovery))
	}
}

func (r *Reencrypting) recovers() bool { return r.Recovery.Key.Len() > 0 }

// lost are the keyslots whose keys nobody has.
func (r *Reencrypting) lost(t *target) ([]exchange.LUKSSlot, error) {
	about, err := report(r.Volume, t.volume)
	if err != nil {
		return nil, err
	}
	stay := slices.Concat(t.volume.OwnSlots(r.Volume), t.volume.SlotsFor(r.Volume, luks.PurposeRecovery), t.volume.Leftover())
	for _, token := range t.volume.OwnTokens() {
		if r.forRecovery(token) && announced(t, token) {
			stay = append(stay, token.Slot)
		}
	}
	return slices.DeleteFunc(about.Slots, func(s exchange.LUKSSlot) bool { return slices.Contains(stay, s.ID) }), nil
}

// checkKeys opens the keyslot that stays, and looks for those that do not.
func (r *Reencrypting) checkKeys(ctx context.Context, t *target) error {
	own, err := r.ownSlot(t)
	if err != nil {
		return err
	}
	keys := []luks.SlotKey{own}
	switch recovery := t.volume.SlotsFor(r.Volume, luks.PurposeRecovery); {
	case r.recovers():
		keys = append(keys, luks.SlotKey{Key: r.Recovery.Key})
	case len(recovery) > 0:
		return fail(CodeDevice, fmt.Errorf("%s has the keyslots %v of recovery keys, and there is to be none: kill them first", t.path, recovery))
	}
	if err := luks.CheckReencryptionKeys(keys); err != nil {
		return err
	}
	if err := r.Cryptsetup.TestKey(ctx, t.path, own.Slot, own.Key); err != nil {
		return wrap(CodeOpen, err)
	}
	t.passphrase.Wipe()
	t.passphrase, t.opens = own.Key.Clone(), &own.Slot
	_, err = r.agreed(t)
	return err
}

// agreed returns the keyslots that are lost, and refuses where nobody agreed to that of
// one.
func (r *Reencrypting) agreed(t *target) ([]exchange.LUKSSlot, error) {
	lost, err := r.lost(t)
	if err != nil {
		return nil, err
	}
	var unasked []string
	for _, s := range lost {
		agreed := func(a exchange.LUKSSlot) bool { return a.ID == s.ID && a.Mark == s.Mark }
		if !slices.ContainsFunc(r.Lose, agreed) {
			unasked = append(unasked, fmt.Sprintf("%d (%s, %s)", s.ID, s.KDF, s.Mark))
		}
	}
	if len(unasked) > 0 {
		return nil, fail(CodeDevice, fmt.Errorf("%w: %s would lose %s", ErrLoses, t.path, strings.Join(unasked, ", ")))
	}
	return lost, nil
}

// killLost kills what somebody agreed to, each by the key that has opened another, and
// the recovery keys' that do not stay. What was added since checkKeys is not lost either.
func (r *Reencrypting) killLost(ctx context.Context, t *target) error {
	if err := t.reread(); err != nil {
		return err
	}
	lost, err := r.agreed(t)
	if err != nil {
		return err
	}
	if err := r.dropRecovery(ctx, t, func(token luks.OwnToken) bool { return token.Version != r.Recovery.Number }); err != nil {
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
	own, err := r.ownSlot(t)
	if err != nil {
		return err
	}
	keys := []luks.SlotKey{own}
	if r.recovers() {
		if keys, err = r.keys(t); err != nil {
			return err
		}
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
