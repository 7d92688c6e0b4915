package unlock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// RekeyService is what a rekey asks of a server; [*api.GuestClient] is one.
type RekeyService interface {
	RekeyChallenge(ctx context.Context) (api.Challenge, error)
	Rekey(ctx context.Context, r api.RekeyRequest) (api.RekeyResponse, error)
	KeepHeader(ctx context.Context, r api.HeaderCopyRequest) (api.HeaderCopyResponse, error)
	RekeyedChallenge(ctx context.Context) (api.Challenge, error)
	Rekeyed(ctx context.Context, r api.RekeyedRequest) (api.RekeyedResponse, error)
}

// RekeyServer is one of the service's servers, as a rekey asks it.
type RekeyServer struct {
	Host string // for people
	RekeyService
}

// Rekeyer carries out rekeys that the service orders: it joins what the service
// says with what [Rekeying] does to a header. The keyslot of the former version is
// killed only where the service said so under its signature: that the new version
// is what boots are released.
//
// It keeps no state: cut anywhere, the next run asks again and goes on. All fields
// are required but Patience.
type Rekeyer struct {
	TPM      Attester
	EventLog string // path
	// Servers are asked one after the other: the next where one does not answer.
	Servers []RekeyServer
	// Pins are the fingerprints of the service identity key, current first.
	Pins       [][32]byte
	Cryptsetup luks.Cryptsetup
	RunDir     RunDir
	Clock      Clock
	// Random is in [0, 1).
	Random func() float64
	// Patience is how long a service that does not answer is asked again, once it
	// gave out secrets: it does that a few times for an order.
	Patience time.Duration
	// Out receives a line "step: NAME DEVICE" before each step, and notes.
	Out io.Writer
}

// The steps of a rekey that ask the service.
const (
	// StepAskRekey asks for the current secret and the next one.
	StepAskRekey Step = "ask-rekey"
	// StepReportKeyslot reports the new keyslot, whereupon the service commits.
	StepReportKeyslot Step = "report-keyslot"
	// StepReportDone reports that the former keyslot is gone.
	StepReportDone Step = "report-done"
	// StepReportFault reports why a part failed.
	StepReportFault Step = "report-fault"
)

// RekeyOrderSteps returns the names of the steps of a rekey that goes through, in
// their order.
func RekeyOrderSteps() []Step {
	add, settle := RekeySteps()
	add = slices.Insert(add, slices.Index(add, StepKeepHeader)+1, StepSendHeader)
	steps := append([]Step{StepAskRekey}, add...)
	steps = append(append(steps, StepReportKeyslot), settle...)
	return append(steps, StepReportDone)
}

// Carry asks what is ordered of a volume and does it: a rekey, and a reencryption
// after it. ordered is false where nothing is.
func (r *Rekeyer) Carry(ctx context.Context, v Volume) (ordered bool, err error) {
	for {
		more, err := r.carryNext(ctx, v)
		switch {
		case errors.Is(err, errNotOrdered):
			return ordered, nil
		case err != nil || !more:
			return true, err
		}
		ordered = true
	}
}

var errNotOrdered = errors.New("nothing is ordered, or it waits for an operator")

// carryNext does what is ordered next, and tells whether more may be.
func (r *Rekeyer) carryNext(ctx context.Context, v Volume) (more bool, err error) {
	if err := r.RunDir.unchanging(); err != nil {
		return false, err
	}
	release, err := r.ask(ctx, v)
	var failure *Failure
	if errors.As(err, &failure) && failure.Code == api.CodeOrder {
		return false, errNotOrdered
	}
	if err != nil {
		return false, fmt.Errorf("asking what is ordered of %s: %w", v.Device.Name(), err)
	}
	defer release.Wipe()
	s := &release.Secrets[0]
	if s.Reencrypt != nil {
		return false, r.reencrypt(ctx, v, s)
	}
	return r.rekey(ctx, v, s)
}

// GoOn does what the secrets of a volume say that the service gave out, in a boot
// or after it: up to the commit they are two, and then the current one alone. What a
// reencryption does after that is the running system's.
func (r *Rekeyer) GoOn(ctx context.Context, v Volume, s *exchange.ReleasedSecret) error {
	_, err := r.rekey(ctx, v, s)
	return err
}

// rekey tells whether the rekey was what a reencryption begins with.
func (r *Rekeyer) rekey(ctx context.Context, v Volume, s *exchange.ReleasedSecret) (more bool, err error) {
	o := r.order(v, s)
	o.disk = Rekeying{
		Device: v.Device.Name(), Volume: v.ID, Identity: v.Identity,
		Cryptsetup: r.Cryptsetup, RunDir: r.RunDir, Out: r.Out,
	}
	o.disk.Keep = o.keep(s.HeaderKey, s.NextVersion)
	if s.NextVersion > 0 {
		if err := o.replace(ctx, SecretVersion{s.NextVersion, s.Next}); err != nil {
			return false, err
		}
	}
	return o.settle(ctx)
}

func (r *Rekeyer) order(v Volume, s *exchange.ReleasedSecret) *rekeyOrder {
	return &rekeyOrder{Rekeyer: r, volume: v, shown: v.named(), current: SecretVersion{s.Version, s.Key}}
}

// ask returns the secrets of one volume. The caller wipes them.
func (r *Rekeyer) ask(ctx context.Context, v Volume) (release *exchange.Release, err error) {
	r.say("step: %s %s", StepAskRekey, v.Device.Name())
	err = r.persist(ctx, func(ctx context.Context, to RekeyServer, pin [32]byte) error {
		release, err = r.askOnce(ctx, v, to, pin)
		return err
	})
	return release, err
}

func (r *Rekeyer) askOnce(ctx context.Context, v Volume, to RekeyServer, pin [32]byte) (*exchange.Release, error) {
	recipient, err := exchange.NewRecipient()
	if err != nil {
		return nil, err
	}
	becomes, err := v.becomes()
	if err != nil {
		return nil, err
	}
	details, err := exchange.MarshalDetails(exchange.RekeyDetails{Becomes: becomes})
	if err != nil {
		return nil, err
	}
	statement := exchange.Statement{
		Purpose: exchange.PurposeRekey, ServiceKey: pin, Recipient: recipient.PublicKey(), Volumes: []exchange.Volume{v.named()}, Details: details,
	}
	raw, answer, err := inquire(ctx, evidence{r.TPM, r.EventLog}, to.Host, statement, to.RekeyChallenge,
		func(ctx context.Context, a api.Attested) (api.RekeyResponse, error) {
			return to.Rekey(ctx, api.RekeyRequest{Attested: a})
		})
	if err != nil {
		return nil, err
	}
	release, err := open(pin, recipient, raw, answer.Sealed)
	if err != nil {
		return nil, untrusted(to.Host, err)
	}
	if err := v.answeredBy(release); err != nil {
		release.Wipe()
		return nil, untrusted(to.Host, err)
	}
	return release, nil
}

// answeredBy demands the secrets of this volume and no other.
func (v *Volume) answeredBy(release *exchange.Release) error {
	if len(release.Secrets) != 1 {
		return fmt.Errorf("the service answered for %d volumes, one was asked for", len(release.Secrets))
	}
	switch s := release.Secrets[0]; {
	case s.Volume != v.ID || s.UUID != v.header().UUID || s.Identity != v.Identity:
		return fmt.Errorf("the service did not answer for volume/%s on %s", v.ID, v.Device.Name())
	case s.Version == 0 || s.NextVersion > 0 && s.NextVersion <= s.Version:
		return fmt.Errorf("the service gave version %d of a secret to follow version %d", s.NextVersion, s.Version)
	default:
		return nil
	}
}

func untrusted(host string, err error) *Failure {
	f := fail(CodeUntrusted, err)
	f.Server = host
	return f
}

// persist makes one exchange with the servers. What is staged meanwhile would be
// newer than its quote.
func (r *Rekeyer) persist(ctx context.Context, exchange func(ctx context.Context, to RekeyServer, pin [32]byte) error) error {
	end, err := r.RunDir.BeginStaging(ctx, r.Clock)
	if err != nil {
		return err
	}
	defer end()
	return r.turning(ctx, exchange)
}

// turning asks the next server where one does not answer.
func (r *Rekeyer) turning(ctx context.Context, exchange func(ctx context.Context, to RekeyServer, pin [32]byte) error) error {
	a := asking{pins: len(r.Pins), note: r.say}
	for _, server := range r.Servers {
		a.hosts = append(a.hosts, server.Host)
	}
	return a.persist(ctx, func(ctx context.Context) error { return exchange(ctx, r.Servers[a.server], r.Pins[a.pin]) })
}

func (r *Rekeyer) say(format string, args ...any) {
	(&Enrollment{Out: r.Out}).say(format, args...)
}

// rekeyOrder is one rekey under way.
type rekeyOrder struct {
	*Rekeyer
	volume Volume
	// shown is the volume as reports name it.
	shown exchange.Volume
	// current is the version that boots are released, as the service said last.
	current SecretVersion
	disk    Rekeying
}

// replace adds the next version, and reports it. Then it is the current one.
func (o *rekeyOrder) replace(ctx context.Context, next SecretVersion) error {
	o.disk.Old, o.disk.New = o.current, next
	added, err := o.onDisk(ctx, next.Number, o.disk.Add)
	if err != nil {
		return err
	}
	details := exchange.RekeyedDetails{Version: next.Number, Volume: added.Report}
	if err := o.report(ctx, StepReportKeyslot, details, exchange.RekeyCommitted); err != nil {
		return fmt.Errorf("reporting version %d of the secret of volume/%s, whose keyslot stands beside the former one: %w", next.Number, o.volume.ID, err)
	}
	o.current = next
	o.say("note: boots of volume/%s are released version %d from now on", o.volume.ID, next.Number)
	return nil
}

// settle leaves the current version as the only one, and reports that. It tells
// whether a reencryption follows.
func (o *rekeyOrder) settle(ctx context.Context) (more bool, err error) {
	o.disk.Old, o.disk.New = o.current, o.current
	part, became := o.disk.Finish, "is rekeyed"
	if _, later := o.volume.holdsOthers(o.current.Number); later {
		if err := o.confirm(ctx); err != nil {
			return false, err
		}
		part, became = o.disk.RollBack, "is as before a rekey that was withdrawn"
	}
	done, err := o.onDisk(ctx, o.current.Number, part)
	if err != nil {
		return false, err
	}
	details := exchange.RekeyedDetails{Version: o.current.Number, Volume: done.Report, Done: true}
	answer, err := o.tell(ctx, StepReportDone, details)
	if err == nil && answer.Status == exchange.RekeyRekeyed {
		more = true
	} else if err == nil {
		err = demand(answer, details, exchange.RekeyFinished)
	}
	var failure *Failure
	if errors.As(err, &failure) && failure.Code == api.CodeOrder {
		err = nil // an earlier report was lost on its way back
	}
	if err != nil {
		return false, fmt.Errorf("reporting that version %d is the only one of the secret of volume/%s: %w", o.current.Number, o.volume.ID, err)
	}
	o.say("note: volume/%s on %s %s: version %d opens it", o.volume.ID, o.disk.Device, became, o.current.Number)
	return more, nil
}

// confirm has the service say, under its signature over the header as it is, that the
// current version is to stay: a later one, which the header holds, was withdrawn.
func (o *rekeyOrder) confirm(ctx context.Context) error {
	held, err := report(o.volume.ID, o.volume.LUKS)
	if err != nil {
		return err
	}
	details := exchange.RekeyedDetails{Version: o.current.Number, Volume: held}
	if err := o.report(ctx, StepReportKeyslot, details, exchange.RekeyCommitted); err != nil {
		return fmt.Errorf("asking whether a later version than %d of the secret of volume/%s, which %s holds, was withdrawn: %w", o.current.Number, o.volume.ID, o.disk.Device, err)
	}
	return nil
}

// onDisk does a part of the rekey, to its end where somebody ends the program, and
// tells the service why it failed.
func (o *rekeyOrder) onDisk(ctx context.Context, version uint32, part func(context.Context) (Rekeyed, error)) (Rekeyed, error) {
	working, cancel := unhurried(ctx)
	defer cancel()
	done, err := part(working)
	if err == nil {
		return done, ctx.Err()
	}
	before, failed := report(o.volume.ID, o.volume.LUKS)
	if failed == nil {
		fault := exchange.RekeyedDetails{Version: version, Volume: before, Fault: faultOf(err)}
		_, failed = o.tell(ctx, StepReportFault, fault)
	}
	if failed != nil {
		o.say("note: the service does not know of it: %v", failed)
	}
	return Rekeyed{}, err
}

func faultOf(err error) string { return shortened(err.Error(), exchange.MaxFault) }

// shortened makes a text printable and at most limit bytes long. It leaves out the
// middle: errors begin with what was being done, and end with why it failed.
func shortened(text string, limit int) string {
	const gap, head = " ... ", 60
	text = strings.Map(printableRune, text)
	if len(text) <= limit {
		return text
	}
	return text[:head] + gap + text[len(text)-(limit-head-len(gap)):]
}

// unhurried keeps the deadline of a context, and not that somebody ends it.
func unhurried(ctx context.Context) (context.Context, context.CancelFunc) {
	free := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(free, deadline)
	}
	return free, func() {}
}

// unchanging tells that no other program changes the volumes now, so that secrets,
// which are given out a few times, are not asked for in vain.
func (d RunDir) unchanging() error {
	unlock, err := (&Enrollment{RunDir: d}).lock()
	if err == nil {
		unlock()
	}
	return err
}
