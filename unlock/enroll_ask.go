package unlock

import (
	"context"
	"errors"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// EnrollServer is one of the service's servers, as an enrolment asks it.
type EnrollServer struct {
	Host string // for people
	Enroller
	Committer
}

func (e *Enrollment) to() EnrollServer { return e.Servers[e.asking.server] }

func (e *Enrollment) hosts() []string {
	var hosts []string
	for _, s := range e.Servers {
		hosts = append(hosts, s.Host)
	}
	return hosts
}

// asking goes through the service's servers and its pinned keys.
type asking struct {
	hosts       []string
	pins        int
	server, pin int // which the next request is for
	// note tells a person about a turn.
	note func(format string, args ...any)
}

// call makes one request, which takes no longer than a server may make it wait.
func call[A any](ctx context.Context, host string, request func(context.Context) (A, error)) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	answer, err := request(ctx)
	if err != nil {
		return answer, answered(host, err)
	}
	return answer, nil
}

// inquire makes one attested exchange with a server: challenge, quote over the
// statement, answer. It returns the statement as it was sent, which the signature
// of the answer covers.
func inquire[A any](ctx context.Context, by evidence, host string, s exchange.Statement,
	challenge func(context.Context) (api.Challenge, error), send func(context.Context, api.Attested) (A, error),
) (statement []byte, answer A, err error) {
	given, err := call(ctx, host, challenge)
	if err != nil {
		return nil, answer, err
	}
	attested, err := attest(by.tpm, by.eventLog, given, s)
	if err != nil {
		return nil, answer, err
	}
	answer, err = call(ctx, host, func(ctx context.Context) (A, error) { return send(ctx, attested) })
	return attested.Statement, answer, err
}

// evidence is what a statement is quoted with.
type evidence struct {
	tpm      Attester
	eventLog string // path
}

// persist repeats an exchange with the next server where one does not answer,
// and with the next pinned key where the service has another one.
func (a *asking) persist(ctx context.Context, exchange func(context.Context) error) error {
	for {
		err := exchange(ctx)
		if err == nil || ctx.Err() != nil || !a.turn(err) {
			return err
		}
	}
}

// turn turns to the next server or key, if there is one that may do better.
func (a *asking) turn(err error) bool {
	var failure *Failure
	switch {
	case !errors.As(err, &failure):
		return false
	case failure.Code == api.CodeServiceKey && a.pin+1 < a.pins:
		a.note("note: %v; going on with the next service key", err)
		a.pin++
	case failure.Code.Unavailable() && a.server+1 < len(a.hosts):
		a.server++
		a.note("note: %v; going on with %s", err, a.hosts[a.server])
	default:
		return false
	}
	return true
}
