package unlock

import (
	"context"
	"errors"

	"keywright.dev/kms/api"
)

// EnrollServer is one of the service's servers, as an enrolment asks it.
type EnrollServer struct {
	Host string // for people
	Enroller
	Committer
}

func (e *Enrollment) to() EnrollServer { return e.Servers[e.server] }

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

// persist repeats an exchange with the next server where one does not answer,
// and with the next pinned key where the service has another one.
func (e *Enrollment) persist(ctx context.Context, exchange func(context.Context) error) error {
	for {
		err := exchange(ctx)
		if err == nil || ctx.Err() != nil || !e.turn(err) {
			return err
		}
	}
}

// turn turns to the next server or key, if there is one that may do better.
func (e *Enrollment) turn(err error) bool {
	var failure *Failure
	switch {
	case !errors.As(err, &failure):
		return false
	case failure.Code == api.CodeServiceKey && e.pin+1 < len(e.Pins):
		e.say("note: %v; going on with the next service key", err)
		e.pin++
	case failure.Code == api.CodeUnavailable && e.server+1 < len(e.Servers):
		e.server++
		e.say("note: %v; going on with %s", err, e.to().Host)
	default:
		return false
	}
	return true
}
