package unlock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// EnrollTPM is the machine's TPM as an enrolment uses it; [*tpm.Identity] is one.
type EnrollTPM interface {
	Attester
	AK() exchange.AK
	Certificate() ([]byte, error)
	ActivateCredential(blob, encrypted []byte) (secret.Bytes, error)
}

// Enroller is the first half of an enrolment at the service.
type Enroller interface {
	Begin(ctx context.Context, r api.BeginRequest) (api.BeginResponse, error)
	Complete(ctx context.Context, r api.CompleteRequest) (api.CompleteResponse, error)
}

// Committer is its second half. [*api.GuestClient] is both.
type Committer interface {
	CommitChallenge(ctx context.Context) (api.Challenge, error)
	Commit(ctx context.Context, r api.CommitRequest) (api.CommitResponse, error)
}

// Enrollment binds the volumes of the running system to the service. All
// fields are required but Config.
type Enrollment struct {
	TPM      EnrollTPM
	EventLog string // path
	// Servers are asked one after the other: the next where one does not answer.
	Servers []EnrollServer
	// Pins are the fingerprints of the service identity key, current first.
	Pins [][32]byte
	// Name is what the machine proposes to be called.
	Name    string
	Devices []Device
	// NoRecoveryKey leaves out the recovery key of each volume.
	NoRecoveryKey bool
	// Passphrase returns a passphrase that a device's volume may open with. It
	// is asked again only where none it gave before does.
	Passphrase func(ctx context.Context, device string) (secret.Bytes, error)
	Cryptsetup luks.Cryptsetup
	NextBoot   NextBoot
	// Initramfs has the client taken into the initramfs; nil where somebody else
	// makes that.
	Initramfs func(ctx context.Context) error
	// Config is completed by the volumes and written to ConfigPath.
	Config     Config
	ConfigPath string
	RunDir     RunDir
	// Opener opens a volume that was formatted; nothing else needs it.
	Opener Opener
	// Stage announces the boots that can follow, with the configuration as it is
	// then; only volumes that are added need it.
	Stage func(ctx context.Context) (Foresight, error)
	// Out receives a line "step: NAME" before each step.
	Out io.Writer

	asking   asking
	adding   bool
	received bool // a boot got the added volumes already
	// begun is the header that an interrupted format left, first the key of
	// keyslot 0 until its target has it, and anew that the format began again.
	begun     *luks.Header
	first     secret.Bytes
	anew      bool
	targets   []*target
	challenge *api.BeginResponse // until it is used
	forecast  forecast
	result    Enrolled
}

// Device is a device to enrol.
type Device struct {
	Path string
	Name string // of its mapping
	Root bool   // the root file system stands on it
	// Options are those that its mapping has, as in [VolumeConfig].
	Options []string
}

// Enrolled is what an enrolment came to.
type Enrolled struct {
	Machine string // id, which is the EK hash
	Name    string // proposed
	Status  string
	Volumes []EnrolledVolume
	// NextBoot tells what the next boot's measurement was predicted from.
	NextBoot string
	// Measurement and Platform are digests in hex.
	Measurement, Platform string
	// Boots are what was staged after volumes were added.
	Boots []ForeseenBoot
}

// EnrolledVolume is one volume of an [Enrolled].
type EnrolledVolume struct {
	ID, UUID, Device string
	Slot             int
	Name             string // of its mapping
	// RecoverySlots are those of recovery keys: one, or none.
	RecoverySlots []int
}

// Run enrols the machine, or takes up an enrolment that was interrupted. It
// returns what an operator needs for the approval.
func (e *Enrollment) Run(ctx context.Context) (Enrolled, error) {
	return e.carryOut(ctx, "enrolling", e.steps())
}

// carryOut runs steps; doing is what people call them.
func (e *Enrollment) carryOut(ctx context.Context, doing string, steps []step) (Enrolled, error) {
	unlock, err := e.lock()
	if err != nil {
		return Enrolled{}, err
	}
	defer unlock()
	defer e.wipe()
	e.asking = asking{hosts: e.hosts(), pins: len(e.Pins), note: e.say}
	for _, s := range steps {
		if err := e.perform(ctx, s); err != nil {
			return Enrolled{}, fmt.Errorf("%s (step %s): %w", doing, s.name, err)
		}
	}
	return e.result, nil
}

func (e *Enrollment) say(format string, args ...any) {
	// A reader that went away does not stop an enrolment.
	_, _ = fmt.Fprintf(e.Out, format+"\n", args...)
}

// lock keeps two enrolments from running at once.
func (e *Enrollment) lock() (unlock func(), err error) {
	f, err := e.RunDir.lock(enrollLock)
	if errors.Is(err, errHeld) {
		return nil, errors.New("another keywright-unlock is changing the volumes of this machine")
	}
	if err != nil {
		return nil, fmt.Errorf("locking the enrolment: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// wipe wipes every secret and closes the devices.
func (e *Enrollment) wipe() {
	e.first.Wipe()
	for _, t := range e.targets {
		t.passphrase.Wipe()
		t.secret.Key.Wipe()
		t.secret.Recovery.Wipe()
		_ = t.device.Close()
	}
}

// target is one volume of the enrolment.
type target struct {
	Device
	path   string
	device *os.File
	// volume is the header as last read; identity what it must go on to have.
	volume     *luks.Volume
	identity   [32]byte
	passphrase secret.Bytes
	// opens is the keyslot that the passphrase opens, where that is known.
	opens  *int
	secret exchange.ReleasedSecret
}

func (t *target) uuid() string { return t.volume.Header().UUID }

// readVolumes reads the headers of all volumes of the machine.
func (e *Enrollment) readVolumes(context.Context) error {
	if err := e.readDevices(); err != nil {
		return err
	}
	if err := e.checkSet(); err != nil {
		return err
	}
	if e.roots() == 0 {
		e.say("note: / is on none of these volumes: a boot that opens them resets the machine where the root that it hands over to is on none of them either")
	}
	return nil
}

// readDevices opens the devices in the order of their UUIDs, as the service
// wants them.
func (e *Enrollment) readDevices() error {
	if len(e.Devices) == 0 {
		return fail(CodeDevice, errors.New("there is no LUKS volume to enrol: name its device with --device"))
	}
	for _, d := range e.Devices {
		device, err := os.Open(d.Path)
		if err != nil {
			return fail(CodeDevice, err)
		}
		t := &target{Device: d, path: d.Path, device: device}
		e.targets = append(e.targets, t)
		if err := t.read(); err != nil {
			return fail(CodeDevice, err)
		}
		if t.identity, err = t.volume.Identity().Digest(); err != nil {
			return err
		}
	}
	slices.SortFunc(e.targets, func(a, b *target) int { return cmp.Compare(a.uuid(), b.uuid()) })
	for i := 1; i < len(e.targets); i++ {
		if a, b := e.targets[i-1], e.targets[i]; a.uuid() == b.uuid() {
			return fail(CodeDevice, fmt.Errorf("%s and %s have the same LUKS UUID: one is a copy of the other", a.path, b.path))
		}
	}
	return nil
}

// roots counts the volumes that the root file system stands on.
func (e *Enrollment) roots() int {
	count := 0
	for _, t := range e.targets {
		if t.Root {
			count++
		}
	}
	return count
}

// read reads and validates the header.
func (t *target) read() error {
	header, err := luks.ReadDevice(t.device)
	if err != nil {
		return fmt.Errorf("reading the header of %s: %w", t.path, err)
	}
	if t.volume, err = header.Validate(); err != nil {
		return fmt.Errorf("reading the header of %s: %w", t.path, err)
	}
	for _, token := range t.volume.Inventory().Tokens {
		if token.Unreadable {
			return fmt.Errorf("token %d of %s has our type but another form: remove it with cryptsetup token remove --token-id %d %s", token.ID, t.path, token.ID, t.path)
		}
	}
	return nil
}

// reread reads the header after a change, and demands that it is still the same
// volume's.
func (t *target) reread() error {
	if err := t.read(); err != nil {
		return err
	}
	identity, err := t.volume.Identity().Digest()
	if err != nil {
		return err
	}
	if identity != t.identity {
		return fmt.Errorf("the header of %s changed under this enrolment", t.path)
	}
	return nil
}

// findPassphrase finds a passphrase among those that were given, or asks for
// one more.
func (e *Enrollment) findPassphrase(ctx context.Context, t *target) error {
	if len(t.foreignSlots()) == 0 {
		return fail(CodeDevice, errors.New("nothing opens it but the secret that the service keeps for it, which goes with our keyslot: copy what is on it elsewhere, and format it anew"))
	}
	for _, other := range e.targets {
		if other == t {
			break
		}
		err := e.opens(ctx, t, other.passphrase)
		if err == nil {
			t.passphrase = other.passphrase
			return nil
		}
		if !errors.Is(err, luks.ErrWrongKey) {
			return err
		}
	}
	passphrase, err := e.Passphrase(ctx, t.path)
	if err != nil {
		return err
	}
	t.passphrase = passphrase
	return e.opens(ctx, t, passphrase)
}

// opens tries the keyslots that are not ours: the passphrase has to go on to
// open when ours are gone.
func (e *Enrollment) opens(ctx context.Context, t *target, passphrase secret.Bytes) error {
	failed := []error{luks.ErrWrongKey}
	for _, slot := range t.foreignSlots() {
		err := e.Cryptsetup.TestKey(ctx, t.path, slot, passphrase)
		if err == nil {
			return nil
		}
		// A keyslot that cannot be tried keeps no other from being tried.
		if !errors.Is(err, luks.ErrWrongKey) {
			failed = append(failed, err)
		}
	}
	return fmt.Errorf("the passphrase opens no keyslot: %w", errors.Join(failed...))
}
