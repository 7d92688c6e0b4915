package pki

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

// Source hands out the server certificate of one listener and renews it. It
// keeps the certificate's key in memory only: a restart makes another. It is
// safe for concurrent use.
type Source struct {
	ca    *CA
	names Names
	now   func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
}

// NewSource returns a source and issues its first certificate, so that what is
// wrong with names shows at the start.
func NewSource(ca *CA, names Names, now func() time.Time) (*Source, error) {
	first, err := ca.Issue(names, now())
	if err != nil {
		return nil, err
	}
	return &Source{ca: ca, names: names, now: now, current: first}, nil
}

// GetCertificate is for [tls.Config]. The first handshake after two thirds of
// the certificate's life, or after the clock went back before it, issues the
// next one. While that fails, the present one goes on serving: guests look at
// no date, and an operator's client says what is wrong.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if due(s.current.Leaf, now) {
		if next, err := s.ca.Issue(s.names, now); err == nil {
			s.current = next
		}
	}
	return s.current, nil
}

// Due tells that another authority is to take the place of this one: two thirds of
// its life are over, or the clock went back before it.
func (c *CA) Due(now time.Time) bool { return due(c.certificate, now) }

func due(certificate *x509.Certificate, now time.Time) bool {
	from, to := certificate.NotBefore, certificate.NotAfter
	return now.Before(from) || !now.Before(from.Add(to.Sub(from)/3*2))
}

// TLSConfig returns the configuration of the guest listener: TLS 1.3 only, the
// hybrid X25519MLKEM768 with X25519 as the one alternative, a certificate that
// is asked for at each handshake, and no session tickets: a guest connects once
// in a boot, and no stored ticket key can then weaken a past connection.
func TLSConfig(getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		GetCertificate:         getCertificate,
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2", "http/1.1"},
	}
}
