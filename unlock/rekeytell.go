package unlock

import (
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// report tells the service how far the rekey came, and demands what it answers
// under its signature.
func (o *rekeyOrder) report(ctx context.Context, step Step, details exchange.RekeyedDetails, want exchange.RekeyStatus) error {
	answer, err := o.tell(ctx, step, details)
	if err != nil {
		return err
	}
	return demand(answer, details, want)
}

// demand demands what the service answered.
func demand(answer exchange.RekeyAnswer, details exchange.RekeyedDetails, want exchange.RekeyStatus) error {
	if answer.Version != details.Version || answer.Status != want {
		return fail(CodeUntrusted, fmt.Errorf("the service says that version %d is %s, want version %d to be %s", answer.Version, answer.Status, details.Version, want))
	}
	return nil
}

// tell repeats a report while no service answers, as long as there is patience: a
// report may be repeated, and its secrets are here now.
func (o *rekeyOrder) tell(ctx context.Context, step Step, details exchange.RekeyedDetails) (answer exchange.RekeyAnswer, err error) {
	o.say("step: %s %s", step, o.volume.Device.Name())
	return o.tellQuietly(ctx, details)
}

// tellQuietly is tell in a step that has said so.
func (o *rekeyOrder) tellQuietly(ctx context.Context, details exchange.RekeyedDetails) (answer exchange.RekeyAnswer, err error) {
	err = o.patiently(ctx, func(ctx context.Context) error {
		answer, err = o.once(ctx, details)
		return err
	})
	return answer, err
}

// patiently repeats an exchange while no service answers.
func (r *Rekeyer) patiently(ctx context.Context, exchange func(context.Context) error) error {
	deadline, pace := r.Clock.Now().Add(r.Patience), newPace(r.Random)
	for {
		err := exchange(ctx)
		var failure *Failure
		if !errors.As(err, &failure) || !failure.passes() {
			return err
		}
		wait := pace.next(failure)
		if r.Clock.Now().Add(wait).After(deadline) || r.Clock.Sleep(ctx, wait) != nil {
			return err
		}
	}
}

// once tells every server once.
func (o *rekeyOrder) once(ctx context.Context, details exchange.RekeyedDetails) (answer exchange.RekeyAnswer, err error) {
	text, err := exchange.MarshalDetails(details)
	if err != nil {
		return answer, err
	}
	err = o.persist(ctx, func(ctx context.Context, to RekeyServer, pin [32]byte) error {
		answer, err = o.tellOnce(ctx, text, to, pin)
		return err
	})
	return answer, err
}

// passes tells whether the next try may do better without a change.
func (f *Failure) passes() bool { return busy(f.Number) || f.Code == api.CodeChallenge }

func (o *rekeyOrder) tellOnce(ctx context.Context, details []byte, to RekeyServer, pin [32]byte) (none exchange.RekeyAnswer, err error) {
	statement := exchange.Statement{Purpose: exchange.PurposeRekeyed, ServiceKey: pin, Volumes: []exchange.Volume{o.shown}, Details: details}
	raw, answer, err := inquire(ctx, evidence{o.TPM, o.EventLog}, to.Host, statement, to.RekeyedChallenge,
		func(ctx context.Context, a api.Attested) (api.RekeyedResponse, error) {
			return to.Rekeyed(ctx, api.RekeyedRequest{Attested: a})
		})
	if err != nil {
		return none, err
	}
	signed := answer.Signed
	if err := exchange.VerifyResponse([][32]byte{pin}, signed.ServiceKey, raw, signed.Response, signed.Signature); err != nil {
		return none, untrusted(to.Host, err)
	}
	said, err := exchange.ParseRekeyAnswer(signed.Response)
	if err != nil {
		return none, untrusted(to.Host, err)
	}
	return said, nil
}
