package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// dialTimeout bounds one attempt to connect, so that a guest tries the next
// server or the next address.
const dialTimeout = 10 * time.Second

// GuestClient speaks to the guest listener of one service. It is safe for
// concurrent use.
//
// It does not verify the server's certificate. A guest at boot has no clock
// that could judge it, and it gains nothing by it: what it sends is no secret,
// and what comes back is believed only under the signature of the service
// identity key, which the caller verifies (exchange.VerifyResponse), and opens
// only with the key that the quoted statement names.
type GuestClient struct{ c caller }

// DialFunc connects, as [net.Dialer.DialContext] does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// NewGuestClient returns a client for a server URL, such as
// https://keywright.example:8443. A nil dial takes the network's own.
func NewGuestClient(server string, dial DialFunc) (*GuestClient, error) {
	base, err := guestBase(server)
	if err != nil {
		return nil, err
	}
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	transport := &http.Transport{
		DialContext:         dial,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConns:        1,
		IdleConnTimeout:     dialTimeout,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			CurvePreferences:   []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
			InsecureSkipVerify: true, //nolint:gosec // see GuestClient: the response's signature is what counts
		},
	}
	return &GuestClient{newCaller(base, transport, MaxGuestAnswer)}, nil
}

func guestBase(server string) (string, error) {
	u, err := url.Parse(server)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		return "", fmt.Errorf("server URL %.200q: want https://HOST:PORT", server)
	case u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("server URL %.200q: want https://HOST:PORT and nothing behind it", server)
	}
	return "https://" + u.Host, nil
}

// Close closes connections that are kept for a next request.
func (g *GuestClient) Close() { g.c.http.CloseIdleConnections() }

// Challenge asks for the challenge of a boot.
func (g *GuestClient) Challenge(ctx context.Context) (Challenge, error) {
	return post[Challenge](ctx, g.c, PathBootChallenge, ChallengeRequest{})
}

// Release asks for the keys of a machine's volumes.
func (g *GuestClient) Release(ctx context.Context, r ReleaseRequest) (ReleaseResponse, error) {
	return post[ReleaseResponse](ctx, g.c, PathBootRelease, r)
}

// Begin starts an enrolment.
func (g *GuestClient) Begin(ctx context.Context, r BeginRequest) (BeginResponse, error) {
	return post[BeginResponse](ctx, g.c, PathEnrollBegin, r)
}

// Complete proves the credential and asks for the secrets of an enrolment.
func (g *GuestClient) Complete(ctx context.Context, r CompleteRequest) (CompleteResponse, error) {
	return post[CompleteResponse](ctx, g.c, PathEnrollComplete, r)
}

// CommitChallenge asks for the challenge of a commit.
func (g *GuestClient) CommitChallenge(ctx context.Context) (Challenge, error) {
	return post[Challenge](ctx, g.c, PathCommitChallenge, ChallengeRequest{})
}

// Commit ends an enrolment.
func (g *GuestClient) Commit(ctx context.Context, r CommitRequest) (CommitResponse, error) {
	return post[CommitResponse](ctx, g.c, PathEnrollCommit, r)
}

// Orders waits until the service wants something of a machine, or has it ask again.
func (g *GuestClient) Orders(ctx context.Context, machine string) (OrdersResponse, error) {
	return post[OrdersResponse](ctx, g.c, PathGuestOrders, OrdersRequest{Machine: machine})
}

// RekeyChallenge asks for the challenge of a rekey.
func (g *GuestClient) RekeyChallenge(ctx context.Context) (Challenge, error) {
	return post[Challenge](ctx, g.c, PathRekeyChallenge, ChallengeRequest{})
}

// Rekey asks for the secrets of a volume whose rekey is ordered.
func (g *GuestClient) Rekey(ctx context.Context, r RekeyRequest) (RekeyResponse, error) {
	return post[RekeyResponse](ctx, g.c, PathRekey, r)
}

// RekeyedChallenge asks for the challenge of a report.
func (g *GuestClient) RekeyedChallenge(ctx context.Context) (Challenge, error) {
	return post[Challenge](ctx, g.c, PathRekeyedChallenge, ChallengeRequest{})
}

// Rekeyed reports what became of a rekey.
func (g *GuestClient) Rekeyed(ctx context.Context, r RekeyedRequest) (RekeyedResponse, error) {
	return post[RekeyedResponse](ctx, g.c, PathRekeyed, r)
}

// StageChallenge asks for the challenge of an announcement.
func (g *GuestClient) StageChallenge(ctx context.Context) (Challenge, error) {
	return post[Challenge](ctx, g.c, PathStageChallenge, ChallengeRequest{})
}

// Stage announces the boots that can follow the running one.
func (g *GuestClient) Stage(ctx context.Context, r StageRequest) (StageResponse, error) {
	return post[StageResponse](ctx, g.c, PathStage, r)
}
