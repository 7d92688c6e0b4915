package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"keywright.dev/kms/secret"
)

const (
	// callTimeout bounds one request, in addition to the caller's context.
	callTimeout = 15 * time.Second
	dialTimeout = 5 * time.Second
	// maxAnswer bounds a body, in bytes. The largest is the description of a key,
	// which lists each of its versions.
	maxAnswer = 128 << 10
)

// transport carries requests. It bounds what comes back and knows when a body
// that was sent is no longer read.
type transport struct{ next *http.Transport }

func newTransport(c config, files files) (transport, error) {
	tlsConfig, err := tlsConfigOf(c, files)
	if err != nil {
		return transport{}, err
	}
	return transport{&http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    dialTimeout,
		MaxResponseHeaderBytes: maxAnswer,
		ResponseHeaderTimeout:  callTimeout, // for renewals, which have no context
		IdleConnTimeout:        time.Minute,
		ForceAttemptHTTP2:      true,
	}}, nil
}

func tlsConfigOf(c config, files files) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.serverName}
	if c.caFile != "" {
		text, err := files.public(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("reading the ca-file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text.Expose()) {
			return nil, errors.New("reading the ca-file: it holds no certificate in PEM")
		}
	}
	if c.certFile != "" {
		// At every connection, so that a renewed certificate is used.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return clientCertificate(c, files)
		}
		if _, err := clientCertificate(c, files); err != nil {
			return nil, err
		}
	}
	return config, nil
}

func clientCertificate(c config, files files) (*tls.Certificate, error) {
	certificate, err := files.public(c.certFile)
	if err != nil {
		return nil, fmt.Errorf("reading the cert-file: %w", err)
	}
	key, err := files.private(c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the key-file: %w", err)
	}
	defer key.Wipe()
	pair, err := tls.X509KeyPair(certificate.Expose(), key.Expose())
	if err != nil {
		return nil, errors.New("reading cert-file and key-file: they hold no certificate and its key in PEM")
	}
	return &pair, nil
}

// checkRedirect follows one, as a standby node answers that does not forward, by
// the method and with the body of before.
func checkRedirect(req *http.Request, via []*http.Request) error {
	status := req.Response.StatusCode
	keeps := status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect
	if len(via) > 1 || !keeps || req.URL.Scheme != via[0].URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if sent, ok := req.Context().Value(outgoingKey{}).(*outgoing); ok && req.Body != nil {
		req = sent.follow(req)
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	return resp, nil
}

// CloseIdleConnections is as that of [http.Transport].
func (t transport) CloseIdleConnections() { t.next.CloseIdleConnections() }

type outgoingKey struct{}

// outgoing is the body of a request. It is wiped when the call has ended and
// nothing reads it any more, which may be later: see [http.RoundTripper].
type outgoing struct {
	mu      sync.Mutex
	body    secret.Bytes
	readers int
	ended   bool
}

func (o *outgoing) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, outgoingKey{}, o)
}

// follow returns the request with bodies that tell when they were closed.
func (o *outgoing) follow(req *http.Request) *http.Request {
	followed := req.Clone(req.Context())
	followed.Body = o.opened(req.Body)
	if getBody := req.GetBody; getBody != nil {
		followed.GetBody = func() (io.ReadCloser, error) {
			body, err := getBody()
			if err != nil {
				return nil, err
			}
			return o.opened(body), nil
		}
	}
	return followed
}

func (o *outgoing) opened(body io.ReadCloser) io.ReadCloser {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.readers++
	return &outgoingReader{body: body, closed: o.readerClosed}
}

func (o *outgoing) readerClosed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.readers--
	o.wipeUnread()
}

func (o *outgoing) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.wipeUnread()
}

func (o *outgoing) wipeUnread() {
	if o.ended && o.readers == 0 {
		o.body.Wipe()
	}
}

// outgoingReader may be closed while it is read from.
type outgoingReader struct {
	mu     sync.Mutex
	body   io.ReadCloser
	closed func() // nil once closed
}

func (r *outgoingReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	return r.body.Read(p)
}

func (r *outgoingReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed == nil {
		return nil
	}
	r.closed()
	r.closed = nil
	return r.body.Close()
}
