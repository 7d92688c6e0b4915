package unlock

import (
	"context"
	"errors"
	"strings"
	"time"

	"keywright.dev/kms/api"
)

// Service is what a boot asks of a server; [*api.GuestClient] is one.
type Service interface {
	Challenge(ctx context.Context) (api.Challenge, error)
	Release(ctx context.Context, r api.ReleaseRequest) (api.ReleaseResponse, error)
}

// Server is one of the service's servers.
type Server struct {
	Host string // for people
	Service
}

const (
	// challengeTimeout ends a race that nobody wins.
	challengeTimeout = 15 * time.Second
	// releaseTimeout is longer than a server makes a request wait.
	releaseTimeout = 30 * time.Second
)

// answer is one server's in a race.
type answer struct {
	server    Server
	challenge api.Challenge
	err       error
}

// race asks all servers for a challenge and returns the first that gives one.
// The others are told to stop.
func race(ctx context.Context, servers []Server) (Server, api.Challenge, error) {
	ctx, cancel := context.WithTimeout(ctx, challengeTimeout)
	defer cancel()
	answers := make(chan answer, len(servers))
	for _, server := range servers {
		go func() {
			challenge, err := server.Challenge(ctx)
			answers <- answer{server, challenge, err}
		}()
	}
	lost := make([]answer, 0, len(servers))
	for range servers {
		a := <-answers
		if a.err == nil {
			return a.server, a.challenge, nil
		}
		lost = append(lost, a)
	}
	return Server{}, api.Challenge{}, nobody(lost)
}

// nobody returns the failure of a race that nobody won: what a server said, if
// one said something.
func nobody(lost []answer) *Failure {
	var hosts []string
	var errs []error
	for _, a := range lost {
		if f := answered(a.server.Host, a.err); !f.Code.Unavailable() {
			return f
		}
		hosts = append(hosts, a.server.Host)
		errs = append(errs, a.err)
	}
	return answered(strings.Join(hosts, ", "), errors.Join(errs...))
}

// without returns the servers but one, or all where there would be none.
func without(servers []Server, host string) []Server {
	var left []Server
	for _, s := range servers {
		if s.Host != host {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		return servers
	}
	return left
}
