package unlock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// Announcer is what staging asks of a server; [*api.GuestClient] is one.
type Announcer interface {
	StageChallenge(ctx context.Context) (api.Challenge, error)
	Stage(ctx context.Context, r api.StageRequest) (api.StageResponse, error)
}

// StageServer is one of the service's servers, as staging asks it.
type StageServer struct {
	Host string // for people
	Announcer
}

// Staging announces the boots that can follow the running one. All fields are
// required.
type Staging struct {
	TPM      Attester
	EventLog string // path
	// Servers are asked one after the other: the next where one does not answer.
	Servers []StageServer
	// Pins are the fingerprints of the service identity key, current first.
	Pins     [][32]byte
	Volumes  []VolumeConfig
	NextBoot NextBoot
	// Mapped returns the open mappings and which of them the root stands on;
	// [CryptDevices] does.
	Mapped func() ([]Device, error)
	// Ready tells why the next boot would not ask at all; nil where nothing is
	// known of.
	Ready func() error
	// Check only asks what would become of the boots.
	Check bool
	// Note tells a person what is gone on with.
	Note func(format string, args ...any)
}

// Foresight is what is known of the boots that can follow.
type Foresight struct {
	// Until is when what was staged ends; nil where nothing was.
	Until *time.Time
	// Boots begin with the one that follows where nobody chooses.
	Boots []ForeseenBoot
	// Unknown is why the files of the first could not tell what it measures, so
	// that this boot's measurement stands for it.
	Unknown error
}

// ForeseenBoot is what would become of a boot.
type ForeseenBoot struct {
	From string // which boot it is, for people
	// Measurement and Platform are digests in hex.
	Measurement, Platform string
	// Code and Detail say why it would get no keys; empty where it would.
	Code   api.Code
	Detail string
}

// Run looks at what the next boot will find and asks the service about it. What
// no service has to be asked for is a [*Failure] with a code of the guest.
func (s *Staging) Run(ctx context.Context) (Foresight, error) {
	details := exchange.StageDetails{CommandLine: commandLine(), Check: s.Check}
	volumes, fault, err := s.volumes(&details)
	if err != nil {
		return Foresight{}, err
	}
	if fault == nil {
		fault = s.Ready()
	}
	if fault != nil {
		details.Fault = bounded(fault.Error(), exchange.MaxFault)
	}
	forecasts, err := s.NextBoot.predictAll()
	if err != nil {
		return Foresight{}, err
	}
	for _, f := range forecasts {
		next := exchange.NextBoot{Files: f.claims}
		if f.unknown != nil {
			next.Unknown = bounded(f.unknown.Error(), exchange.MaxFault)
		}
		details.Boots = append(details.Boots, next)
	}
	answer, err := s.announce(ctx, volumes, details)
	if err != nil {
		return Foresight{}, err
	}
	return foresight(forecasts, answer, s.Check)
}

// maxCode bounds a code, which may be of a later service than this program.
const maxCode = 32

// foresight believes of an answer, which nobody signs, its form alone.
func foresight(forecasts []forecast, answer api.StageResponse, check bool) (Foresight, error) {
	if len(answer.Boots) != len(forecasts) {
		return Foresight{}, fail(CodeUntrusted, fmt.Errorf("the service answered for %d boots, %d were announced", len(answer.Boots), len(forecasts)))
	}
	if answer.Until == nil && !check {
		return Foresight{}, fail(CodeUntrusted, errors.New("the service does not say until when the boots are staged"))
	}
	result := Foresight{Until: answer.Until, Unknown: forecasts[0].unknown}
	for i, f := range forecasts {
		b := answer.Boots[i]
		if !wellFormed(b) {
			return Foresight{}, fail(CodeUntrusted, fmt.Errorf("the answer for boot %d is not of the form that a service gives", i+1))
		}
		result.Boots = append(result.Boots, ForeseenBoot{
			From: f.from, Measurement: b.Measurement, Platform: b.Platform,
			Code: api.Code(bounded(string(b.Code), maxCode)), Detail: bounded(b.Detail, maxLine),
		})
	}
	return result, nil
}

func wellFormed(b api.StagedBoot) bool {
	digest := func(text string) bool {
		raw, err := hex.DecodeString(text)
		return text == "" || err == nil && len(raw) == sha256.Size && hex.EncodeToString(raw) == text
	}
	return digest(b.Measurement) && digest(b.Platform)
}

// volumes reads the headers as the next boot will. What is wrong with one of them
// is the fault; only where none is ours there is nothing to ask about.
func (s *Staging) volumes(details *exchange.StageDetails) (asked []exchange.Volume, fault, err error) {
	blame := func(name string, err error) {
		if fault == nil {
			fault = fmt.Errorf("%s: %w", name, err)
		}
	}
	var found Volumes
	defer func() { _ = found.Close() }()
	for _, c := range s.Volumes {
		v, err := findVolume(c)
		if err != nil {
			if !c.optional() {
				blame(c.Name, err)
			}
			continue
		}
		found = append(found, v)
		if !c.optional() && (v.ID == "" || len(v.Slots) == 0) {
			blame(c.Name, errors.New("no keyslot of it is ours"))
		}
		if v.ID == "" {
			continue
		}
		asked = append(asked, v.named())
		about, err := v.report()
		if err != nil {
			return nil, nil, err
		}
		details.Volumes = append(details.Volumes, about)
	}
	if len(asked) == 0 {
		return nil, nil, fail(CodeNotEnrolled, errors.Join(errors.New("no configured volume is enrolled"), fault))
	}
	if err := s.rooted(found); err != nil {
		blame("root", err)
	}
	return asked, fault, nil
}

// rooted demands that the root stands on mappings that the next boot opens: it
// hands over to no other.
func (s *Staging) rooted(volumes Volumes) error {
	mapped, err := s.Mapped()
	if err != nil {
		return err
	}
	roots := 0
	for _, d := range mapped {
		if !d.Root {
			continue
		}
		roots++
		if !opens(volumes, d) {
			return fmt.Errorf("the root stands on mapping %s of %s, which the next boot does not open", d.Name, d.Path)
		}
	}
	if roots == 0 {
		return errors.New("the root stands on no mapping of a LUKS volume")
	}
	return nil
}

// opens tells whether one of the volumes is on the device of a mapping.
func opens(volumes Volumes, d Device) bool {
	device, err := os.Stat(d.Path)
	if err != nil {
		return false
	}
	for _, v := range volumes {
		if ours, err := v.Device.Stat(); err == nil && os.SameFile(ours, device) {
			return v.Config.Name == d.Name
		}
	}
	return false
}

// announce sends what is known of the boots.
func (s *Staging) announce(ctx context.Context, volumes []exchange.Volume, details exchange.StageDetails) (answer api.StageResponse, err error) {
	text, err := exchange.MarshalDetails(details)
	if err != nil {
		return answer, err
	}
	a := asking{pins: len(s.Pins), note: s.Note}
	for _, server := range s.Servers {
		a.hosts = append(a.hosts, server.Host)
	}
	err = a.persist(ctx, func(ctx context.Context) error {
		statement := exchange.Statement{
			Purpose: exchange.PurposeStage, ServiceKey: s.Pins[a.pin], Volumes: volumes, Details: text,
		}
		answer, err = s.ask(ctx, s.Servers[a.server], statement)
		return err
	})
	return answer, err
}

func (s *Staging) ask(ctx context.Context, to StageServer, statement exchange.Statement) (api.StageResponse, error) {
	_, answer, err := inquire(ctx, evidence{s.TPM, s.EventLog}, to.Host, statement, to.StageChallenge,
		func(ctx context.Context, a api.Attested) (api.StageResponse, error) {
			return to.Stage(ctx, api.StageRequest{Attested: a})
		})
	return answer, err
}

// bounded makes a text printable and at most limit bytes long.
func bounded(text string, limit int) string {
	text = printable(text)
	return text[:min(len(text), limit)]
}

const (
	stageLock = "stage.lock"
	// stagePatience is how long another staging is waited for.
	stagePatience = 5 * time.Minute
)

// BeginStaging keeps two from staging at once, of which the slower could win with
// what it knew before: a second one waits.
func (d RunDir) BeginStaging(ctx context.Context, clock Clock) (end func(), err error) {
	deadline := clock.Now().Add(stagePatience)
	for {
		f, err := d.lock(stageLock)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil
		case !errors.Is(err, errHeld):
			return nil, fmt.Errorf("locking the staging: %w", err)
		case clock.Now().After(deadline):
			return nil, errors.New("another keywright-unlock stage is running and does not end")
		}
		if err := clock.Sleep(ctx, lockPoll); err != nil {
			return nil, err
		}
	}
}
