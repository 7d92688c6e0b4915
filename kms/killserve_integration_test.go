//go:build integration

package kms_test

import (
	"context"
	"io"
	"net/rpc"
	"os"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/kill"
	"keywright.dev/test/sim"
)

// Exchange is the service as a machine beside it calls it, with what operators order.
type Exchange struct{ in *installation }

// serveMachine serves a machine on the standard input and output, and dies at a step
// of what is asked.
func serveMachine(folder string, at *kill.Countdown) error {
	return doIn(folder, at, func(_ context.Context, in *installation) error {
		server := rpc.NewServer()
		if err := server.RegisterName("service", &Exchange{in}); err != nil {
			return err
		}
		at.Begin()
		server.ServeConn(struct {
			io.ReadCloser
			io.Writer
		}{os.Stdin, os.Stdout})
		return nil
	}, "a")
}

func (e *Exchange) Challenge(purpose exchange.Purpose, answer *api.Challenge) (err error) {
	*answer, err = challenge(e.in.IssueChallenge(purpose))
	return err
}

func (e *Exchange) Release(r api.ReleaseRequest, answer *api.ReleaseResponse) (err error) {
	*answer, err = (&direct{e.in.Service}).Release(context.Background(), r)
	return err
}

func (e *Exchange) Rekey(r api.RekeyRequest, answer *api.RekeyResponse) (err error) {
	*answer, err = (&direct{e.in.Service}).Rekey(context.Background(), r)
	return err
}

func (e *Exchange) KeepHeader(r api.HeaderCopyRequest, answer *api.HeaderCopyResponse) (err error) {
	*answer, err = (&direct{e.in.Service}).KeepHeader(context.Background(), r)
	return err
}

func (e *Exchange) Rekeyed(r api.RekeyedRequest, answer *api.RekeyedResponse) (err error) {
	*answer, err = (&direct{e.in.Service}).Rekeyed(context.Background(), r)
	return err
}

func (e *Exchange) Order(volume kms.Volume, _ *bool) error {
	_, err := e.in.OrderRekey(context.Background(), operator(), &volume, "a test", false)
	return err
}

func (e *Exchange) Withdraw(volume kms.Volume, _ *bool) error {
	_, err := e.in.WithdrawRekey(context.Background(), operator(), &volume, "a test")
	return err
}

// served is who is served.
type served interface {
	sim.Guest
	sim.RekeyGuest
	order(volume kms.Volume) error
	withdraw(volume kms.Volume) error
}

// remote is served by the child.
type remote struct {
	sim.Guest
	client *rpc.Client
}

func ask[T any](r *remote, method string, request any) (answer T, err error) {
	return answer, r.client.Call("service."+method, request, &answer)
}

func (r *remote) Challenge(context.Context) (api.Challenge, error) {
	return ask[api.Challenge](r, "Challenge", exchange.PurposeBoot)
}

func (r *remote) Release(_ context.Context, q api.ReleaseRequest) (api.ReleaseResponse, error) {
	return ask[api.ReleaseResponse](r, "Release", q)
}

func (r *remote) RekeyChallenge(context.Context) (api.Challenge, error) {
	return ask[api.Challenge](r, "Challenge", exchange.PurposeRekey)
}

func (r *remote) Rekey(_ context.Context, q api.RekeyRequest) (api.RekeyResponse, error) {
	return ask[api.RekeyResponse](r, "Rekey", q)
}

func (r *remote) KeepHeader(_ context.Context, q api.HeaderCopyRequest) (api.HeaderCopyResponse, error) {
	return ask[api.HeaderCopyResponse](r, "KeepHeader", q)
}

func (r *remote) RekeyedChallenge(context.Context) (api.Challenge, error) {
	return ask[api.Challenge](r, "Challenge", exchange.PurposeRekeyed)
}

func (r *remote) Rekeyed(_ context.Context, q api.RekeyedRequest) (api.RekeyedResponse, error) {
	return ask[api.RekeyedResponse](r, "Rekeyed", q)
}

func (r *remote) order(volume kms.Volume) error {
	_, err := ask[bool](r, "Order", volume)
	return err
}

func (r *remote) withdraw(volume kms.Volume) error {
	_, err := ask[bool](r, "Withdraw", volume)
	return err
}

// local is served by this process.
type local struct {
	*direct
	exchange Exchange
}

func (in *installation) local() *local { return &local{&direct{in.Service}, Exchange{in}} }

func (l *local) order(volume kms.Volume) error    { return l.exchange.Order(volume, new(bool)) }
func (l *local) withdraw(volume kms.Volume) error { return l.exchange.Withdraw(volume, new(bool)) }
