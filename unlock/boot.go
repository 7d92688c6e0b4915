package unlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// BootTPM is the machine's TPM as a boot uses it; [*tpm.Identity] is one.
type BootTPM interface {
	Attester
	ReleasePCR
}

// Opener opens volumes and closes them again; [Disks] does.
type Opener interface {
	// Ready tells why a volume could not be opened if its key were there.
	Ready(ctx context.Context, v Volume) error
	// Open opens a volume with its volume key and proves that the mapping is
	// what was validated. On an error nothing stays open, or it is
	// [luks.ErrLeftOpen] too.
	Open(ctx context.Context, v Volume, volumeKey secret.Bytes) (*luks.Mapping, error)
	// Close closes a mapping; one that is not there is [luks.ErrNoMapping].
	Close(ctx context.Context, name string) error
}

// Clock is time as a boot uses it: spans, never dates.
type Clock interface {
	Now() time.Time
	Sleep(ctx context.Context, d time.Duration) error
}

// Boot is one boot of an enrolled machine. All fields are required but Deadline.
type Boot struct {
	TPM      BootTPM
	EventLog string // path
	Servers  []Server
	// Pins are the fingerprints of the service identity key, current first.
	Pins [][32]byte
	// Volumes are opened, all or none; Run leaves out those that the machine boots
	// without where they fail.
	Volumes []Volume
	// Unseal returns the volume key that a released key opens; [Unseal] does.
	Unseal func(ctx context.Context, v Volume, key secret.Bytes) (secret.Bytes, error)
	Opener Opener
	Clock  Clock
	// Deadline ends the trying; the zero time never does.
	Deadline time.Time
	// Random is in [0, 1).
	Random func() float64
	// Announce shows one line on the consoles.
	Announce func(line string)
	// Keep keeps what this boot must remember: the receipt and the mappings.
	Keep Keeper
	// Reboot resets the machine, and does not return if it can.
	Reboot func() error

	pin   int    // of Pins, which the next statement names
	avoid string // host that took a request and gave no release
	// forgone are all volumes, while it is asked without the optional ones.
	forgone []Volume
	forwent bool
	rekeys  []Delivered
}

// Keeper keeps what a boot leaves to its hand-over and to the running system;
// [RunDir] does.
type Keeper interface {
	Receipt(entry []byte) error
	// Opened keeps which mappings may be open, in the place of what it kept.
	Opened(mappings []Opened) error
}

// Run asks for the machine's keys until the deadline and opens its volumes.
// Being told to stop ends the asking; what is released is opened or wiped. Its
// error is a [*Failure]. The caller has begun the boot ([RunDir.BeginBoot]).
func (b *Boot) Run(ctx context.Context) error {
	release, err := b.fetch(ctx)
	if err != nil {
		return err
	}
	defer release.Wipe()
	if err := b.claim(release); err != nil {
		return err
	}
	if err := b.Keep.Receipt(release.Entry); err != nil {
		// Worth a line, not worth a machine that does not boot.
		b.Announce(printable("keywright: keeping the receipt: " + err.Error()))
	}
	err = b.openAll(context.WithoutCancel(ctx), release)
	switch {
	case err == nil:
		b.rekeys = b.deliveredIn(release)
		return nil
	case errors.Is(err, errStaysOpen):
		release.Wipe()
		return b.reset(fail(CodeOpen, err))
	default:
		failure := fail(CodeOpen, err)
		b.Announce(failure.Line(b.machine(), -1) + "; this boot cannot ask again")
		return failure
	}
}

func (b *Boot) machine() string { return b.TPM.EK().MachineID() }

// claim extends PCR 15, and refuses the release where somebody did before: then
// the hand-over went on meanwhile, and devices must not be opened behind it.
func (b *Boot) claim(release *exchange.Release) error {
	event := exchange.ReleaseEvent(release.ID[:])
	if err := b.TPM.ExtendPCR15(event); err != nil {
		release.Wipe()
		return b.reset(fail(CodeTPM, fmt.Errorf("closing the exchange of this boot: %w", err)))
	}
	value, err := b.TPM.PCR15()
	var failure *Failure
	switch {
	case err != nil:
		failure = fail(CodeTPM, err)
	case value != exchange.Extend([32]byte{}, event):
		failure = fail(CodeSpent, errors.New("PCR 15 was extended while the answer was on its way: the hand-over went on, and the released keys are wiped"))
	default:
		return nil
	}
	release.Wipe()
	b.Announce(failure.Line(b.machine(), -1))
	return failure
}

// reset ends a boot whose PCR 15 cannot be extended, or whose volumes cannot be
// closed: whatever ran next could ask for the keys again, or read the data.
func (b *Boot) reset(failure *Failure) error {
	b.Announce(failure.Line(b.machine(), -1) + "; resetting the machine")
	failure.err = errors.Join(failure.err, b.Reboot())
	return failure
}

// fetch tries until it has a release, PCR 15 is extended, or the deadline is
// reached. A lost answer costs nothing: the next try has a fresh challenge.
func (b *Boot) fetch(ctx context.Context) (*exchange.Release, error) {
	pace := newPace(b.Random)
	for {
		release, err := b.try(ctx)
		if err == nil {
			return release, nil
		}
		failure := asFailure(err)
		wait := pace.next(failure)
		if b.expect(failure) || b.forgo(failure) {
			wait = 0
		}
		if failure.Code == CodeSpent || ctx.Err() != nil || b.late(wait) {
			b.Announce(failure.Line(b.machine(), -1))
			return nil, failure
		}
		b.Announce(failure.Line(b.machine(), wait))
		if err := b.Clock.Sleep(ctx, wait); err != nil {
			return nil, failure
		}
	}
}

func (b *Boot) late(wait time.Duration) bool {
	return !b.Deadline.IsZero() && b.Clock.Now().Add(wait).After(b.Deadline)
}

// unspent refuses to ask where PCR 15 was extended before.
func (b *Boot) unspent() error {
	value, err := b.TPM.PCR15()
	switch {
	case err != nil:
		return fail(CodeTPM, err)
	case value != [32]byte{}:
		return fail(CodeSpent, errors.New("PCR 15 is extended: this boot had its keys or gave them up, and a restart alone brings them back"))
	default:
		return nil
	}
}

// ready refuses to ask for keys that could not be used now: they are released
// once.
func (b *Boot) ready(ctx context.Context) error {
	for _, v := range b.Volumes {
		if err := b.Opener.Ready(ctx, v); err != nil && !b.leaveOut(v, err) {
			return fail(CodeDevice, err)
		}
	}
	return nil
}

// expect turns to the next pinned service key where a server has another one
// than the statement named, and tells whether that is worth trying at once.
func (b *Boot) expect(f *Failure) bool {
	if f.Code != api.CodeServiceKey || len(b.Pins) < 2 {
		return false
	}
	b.pin = (b.pin + 1) % len(b.Pins)
	return b.pin != 0
}

// try is one exchange: challenge, quote, release.
func (b *Boot) try(ctx context.Context) (*exchange.Release, error) {
	if err := b.unspent(); err != nil {
		return nil, err
	}
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	server, challenge, err := race(ctx, without(b.Servers, b.avoid))
	b.avoid = ""
	if err != nil {
		return nil, err
	}
	recipient, err := exchange.NewRecipient()
	if err != nil {
		return nil, err
	}
	statement, err := b.statement(recipient)
	if err != nil {
		return nil, err
	}
	attested, err := attest(b.TPM, b.EventLog, challenge, statement)
	if err != nil {
		return nil, err
	}
	return b.ask(ctx, server, recipient, attested)
}

func (b *Boot) ask(ctx context.Context, server Server, recipient *exchange.Recipient, attested api.Attested) (*exchange.Release, error) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	response, err := server.Release(ctx, api.ReleaseRequest{Attested: attested})
	if err != nil {
		// A refusal is not signed: anybody in between can answer with one.
		b.avoid = server.Host
		return nil, answered(server.Host, err)
	}
	release, err := open(b.Pins[b.pin], recipient, attested.Statement, response.Sealed)
	if err != nil {
		b.avoid = server.Host
		failure := fail(CodeUntrusted, err)
		failure.Server = server.Host
		return nil, failure
	}
	return release, nil
}

func (b *Boot) statement(recipient *exchange.Recipient) (exchange.Statement, error) {
	s := exchange.Statement{Purpose: exchange.PurposeBoot, ServiceKey: b.Pins[b.pin], Recipient: recipient.PublicKey()}
	details := exchange.BootDetails{CommandLine: commandLine()}
	for _, pin := range b.Pins {
		details.ServiceKeys = append(details.ServiceKeys, pin[:])
	}
	for _, v := range b.Volumes {
		s.Volumes = append(s.Volumes, v.named())
		about, err := v.report()
		if err != nil {
			return s, err
		}
		details.Volumes = append(details.Volumes, about)
	}
	var err error
	s.Details, err = exchange.MarshalDetails(details)
	return s, err
}
