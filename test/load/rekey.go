package load

import (
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// Step is a moment of a rekey's exchange in which the machine, or the service, may
// die.
type Step string

// The requests of a rekey, as guests name them.
const (
	askRekey      = "ask-rekey"
	sendHeader    = "send-header"
	reportKeyslot = "report-keyslot"
	reportDone    = "report-done"
)

// Steps returns them in their order. Of each request there are three: before its
// challenge, where it has one, before itself, and before its answer is heard. What a machine does to its
// disk is done between two requests.
func Steps() (steps []Step) {
	for _, request := range []string{askRekey, sendHeader, reportKeyslot, reportDone} {
		if request != sendHeader {
			steps = append(steps, stepOf(request, "challenge"))
		}
		steps = append(steps, stepOf(request, "request"), stepOf(request, "answer"))
	}
	return steps
}

func stepOf(request, part string) Step { return Step(request + ": " + part) }

// ErrDied is the end of a machine.
var ErrDied = errors.New("the machine died")

// stepped is the service as a machine calls it that may die at a step.
type stepped struct {
	guest   *api.GuestClient
	request string
	at      func(Step) error
}

func (s *stepped) challenge(ctx context.Context, ask func(context.Context) (api.Challenge, error)) (api.Challenge, error) {
	if err := s.at(stepOf(s.request, "challenge")); err != nil {
		return api.Challenge{}, err
	}
	return ask(ctx)
}

func send[Q, A any](ctx context.Context, s *stepped, q Q, ask func(context.Context, Q) (A, error)) (answer A, err error) {
	if err = s.at(stepOf(s.request, "request")); err != nil {
		return answer, err
	}
	if answer, err = ask(ctx, q); err != nil {
		return answer, err
	}
	return answer, s.at(stepOf(s.request, "answer"))
}

func (s *stepped) RekeyChallenge(ctx context.Context) (api.Challenge, error) {
	return s.challenge(ctx, s.guest.RekeyChallenge)
}

func (s *stepped) Rekey(ctx context.Context, r api.RekeyRequest) (api.RekeyResponse, error) {
	return send(ctx, s, r, s.guest.Rekey)
}

func (s *stepped) KeepHeader(ctx context.Context, r api.HeaderCopyRequest) (api.HeaderCopyResponse, error) {
	return send(ctx, s, r, s.guest.KeepHeader)
}

func (s *stepped) RekeyedChallenge(ctx context.Context) (api.Challenge, error) {
	return s.challenge(ctx, s.guest.RekeyedChallenge)
}

func (s *stepped) Rekeyed(ctx context.Context, r api.RekeyedRequest) (api.RekeyedResponse, error) {
	return send(ctx, s, r, s.guest.Rekeyed)
}

// Order orders a rekey of a machine's first volume. That one is ordered already is
// the answer to an order whose answer was lost.
func (f *Fleet) Order(ctx context.Context, operator *api.OperatorClient, m *Machine) error {
	return f.retry(ctx, func() error {
		_, err := operator.RekeyVolume(ctx, m.Volumes[0].ID, api.RekeyVolume{Reason: "a test"})
		if refusedAs(err, api.CodeState) && f.Patience > 0 {
			return nil
		}
		return err
	})
}

func refusedAs(err error, code api.Code) bool {
	var refused *api.Error
	return errors.As(err, &refused) && refused.Code == code
}

// Rekey carries out what is ordered of a machine's first volume, as its agent does. At
// each step it calls at, whose error is that the machine dies there: [ErrDied].
func (f *Fleet) Rekey(ctx context.Context, m *Machine, at func(Step) error) error {
	return f.connected(m, func(g *api.GuestClient) error {
		var known api.OrdersResponse
		err := f.retry(ctx, func() (err error) {
			known, err = g.Orders(ctx, m.TPM.Machine())
			return err
		})
		if err != nil {
			return err
		}
		if !known.Ordered {
			return errors.New("it is told that nothing is ordered")
		}
		s := &stepped{g, askRekey, at}
		var got *exchange.ReleasedSecret
		err = f.retry(ctx, func() (err error) {
			got, err = m.AskRekey(ctx, s, 0)
			return err
		})
		if err != nil {
			return err
		}
		m.Receipts = append(m.Receipts, m.Receipt)
		return f.settle(ctx, s, m, got)
	})
}

// Return boots a machine, which goes on with what is ordered of its first volume.
func (f *Fleet) Return(ctx context.Context, m *Machine) error {
	m.Machine.Boot()
	return f.connected(m, func(g *api.GuestClient) error {
		var release *exchange.Release
		err := f.retry(ctx, func() (err error) {
			release, err = m.Unlock(ctx, g)
			return err
		})
		if err != nil {
			return err
		}
		m.Receipts = append(m.Receipts, m.Receipt)
		got := &release.Secrets[0]
		if got.NextVersion == 0 && len(m.Volumes[0].Own) == 1 {
			return nil
		}
		return f.settle(ctx, &stepped{guest: g, at: func(Step) error { return nil }}, m, got)
	})
}

// settle goes on with secrets that were received.
func (f *Fleet) settle(ctx context.Context, s *stepped, m *Machine, got *exchange.ReleasedSecret) error {
	version := got.Version
	if got.NextVersion > 0 {
		if version = got.NextVersion; !m.Volumes[0].Opens(got.Next) {
			s.request = sendHeader
			if err := f.retry(ctx, func() error { return m.KeepHeader(ctx, s, 0, got) }); err != nil {
				return err
			}
			m.Volumes[0].AddKeyslot(version, got.Next)
		}
		if err := f.report(ctx, s, m, reportKeyslot, exchange.RekeyedDetails{Version: version}); err != nil {
			return err
		}
	}
	m.Volumes[0].KillKeyslots(version)
	err := f.report(ctx, s, m, reportDone, exchange.RekeyedDetails{Version: version, Done: true})
	if refusedAs(err, api.CodeOrder) && f.Patience > 0 {
		return nil // it was heard, and the answer was lost
	}
	return err
}

func (f *Fleet) report(ctx context.Context, s *stepped, m *Machine, request string, details exchange.RekeyedDetails) error {
	want := exchange.RekeyAnswer{Version: details.Version, Status: exchange.RekeyCommitted}
	if details.Done {
		want.Status = exchange.RekeyFinished
	}
	s.request = request
	return f.retry(ctx, func() error {
		answer, err := m.Report(ctx, s, 0, details)
		if err == nil && answer != want {
			err = fmt.Errorf("%s was answered with %+v", request, answer)
		}
		return err
	})
}
