package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
)

// Listeners are what a server accepts from. Run closes them.
type Listeners struct {
	Guest    net.Listener // TCP; TLS is the server's
	Operator net.Listener // a unix socket
	Metrics  net.Listener // TCP on loopback
}

func (l Listeners) close() error {
	return errors.Join(l.Guest.Close(), l.Operator.Close(), l.Metrics.Close())
}

const (
	// sequenceEvery is how often entries are brought into the audit log's tree.
	sequenceEvery = 500 * time.Millisecond
	// tryEvery is how often a store whose last change failed is tried again.
	tryEvery = 5 * time.Second
	// upkeepEvery is how often refusals are recorded, enrolments expire and keys
	// are looked after.
	upkeepEvery = time.Minute
	// watchEvery is how often the store is asked whether it failed.
	watchEvery = 200 * time.Millisecond
	// stopTimeout bounds how long requests in flight may go on.
	stopTimeout = 25 * time.Second
)

// Run serves until ctx ends. Then it admits nothing any more, lets requests in
// flight finish, records and sequences what is left, and returns. It returns an
// error if its start cannot be recorded, if a listener fails, if the store takes no more changes, or if what was
// left could not be recorded.
func (s *Server) Run(ctx context.Context, l Listeners) error {
	// Requests in flight outlive ctx.
	serving := context.WithoutCancel(ctx)
	if err := s.recordStart(serving); err != nil {
		return errors.Join(err, l.close())
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	guest, operator, metrics := s.guestServer(serving), s.operatorServer(serving), s.metricsServer(serving)
	var group sync.WaitGroup
	serve := func(name string, run func() error) {
		group.Go(func() {
			if err := run(); !errors.Is(err, http.ErrServerClosed) {
				stop(fmt.Errorf("serving the %s listener: %w", name, err))
			}
		})
	}
	serve("guest", func() error { return guest.ServeTLS(limitedListener{l.Guest, s.connections}, "", "") })
	serve("operator", func() error { return operator.Serve(l.Operator) })
	serve("metrics", func() error { return metrics.Serve(l.Metrics) })
	group.Go(func() { s.repeat(ctx, sequenceEvery, "sequencing the audit log", s.sequenceAll) })
	group.Go(func() { s.repeat(ctx, tryEvery, "writing to the store", s.tryWriting) })
	group.Go(func() { s.repeat(ctx, upkeepEvery, "looking after the service", s.upkeep) })
	group.Go(func() { s.watchStore(ctx, stop) })
	scheduled := s.schedule(ctx)
	s.running.Store(true)

	<-ctx.Done()
	s.running.Store(false)
	s.guests.waits.close()
	<-scheduled // what it did is recorded before the end
	err := s.stop(serving, guest, operator, metrics)
	group.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// ActionStart is the action of the entry that a start leaves.
const ActionStart = "server.start"

// recordStart enters the start before anything is served.
func (s *Server) recordStart(ctx context.Context) error {
	facts := []audit.Fact{{Name: "version", Is: s.Version}}
	if s.Restored {
		facts = append(facts, audit.Fact{Name: "store", Is: "restored from a backup"})
	}
	by := kms.Operator{Actor: audit.Actor{Kind: audit.ActorService, ID: "server"}}
	return s.Service.Record(ctx, by, ActionStart, "", audit.Done, facts...)
}

func (s *Server) guestServer(ctx context.Context) *http.Server {
	server := s.httpServer(ctx, s.guests)
	server.TLSConfig = s.TLS.Clone()
	// One request at a time on a connection: its limits are then those of requests.
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.ConnState, server.ConnContext = s.connections.track, withConnection
	return server
}

func (s *Server) operatorServer(ctx context.Context) *http.Server {
	server := s.httpServer(ctx, s.operators)
	server.ConnContext = withPeer
	// An export may take longer than an answer to a guest.
	server.WriteTimeout = 0
	return server
}

func (s *Server) metricsServer(ctx context.Context) *http.Server {
	return s.httpServer(ctx, s.observers)
}

func (s *Server) httpServer(ctx context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout + s.Limits.BodyTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(quiet{s.Logger.Handler()}, slog.LevelDebug),
	}
}

// stop ends the listeners in the order in which they are missed least: metrics
// are watched to the end.
func (s *Server) stop(ctx context.Context, servers ...*http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var errs []error
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stopping: requests were cut off: %w", err), server.Close())
		}
	}
	if err := s.Service.FlushAggregates(ctx); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.sequenceAll(ctx))...)
}

// watchStore ends the service when the store fails: only a new process finds out
// what the disk holds.
func (s *Server) watchStore(ctx context.Context, stop context.CancelCauseFunc) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.Store.Err(); err != nil {
			stop(fmt.Errorf("the service ends, to be started anew: %w", err))
			return
		}
	}
}

// repeat does something now and then until ctx ends. An error is logged, and
// the next time may do better.
func (s *Server) repeat(ctx context.Context, every time.Duration, what string, do func(context.Context) error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			s.Logger.Error(what, "error", err)
		}
	}
}

// sequenceAll brings every entry that waits into the tree.
func (s *Server) sequenceAll(ctx context.Context) error {
	for {
		began := s.Clock()
		n, err := s.Service.Sequence(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.Metrics.sequenceErr.Inc()
			}
			return err
		}
		if n == 0 {
			return nil
		}
		s.Metrics.sequencing.Observe(s.Clock().Sub(began).Seconds())
	}
}

// tryWriting finds out whether a store whose last change failed takes changes
// again: while the server is not ready, nobody else may turn to it.
func (s *Server) tryWriting(ctx context.Context) error {
	if s.Store.LastFailure() == nil {
		return nil
	}
	if err := s.Store.TryWriting(ctx); err != nil {
		return err
	}
	s.Logger.Info("the store takes changes again")
	return nil
}

func (s *Server) upkeep(ctx context.Context) error {
	return errors.Join(s.Service.FlushAggregates(ctx), s.Service.ExpirePending(ctx), s.Service.TendKeyrings(ctx), s.Upkeep(ctx))
}

// quiet drops what anybody can make net/http write by breaking a handshake off.
type quiet struct{ slog.Handler }

// Handle implements [slog.Handler].
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if bytes.Contains([]byte(r.Message), []byte("TLS handshake error")) {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}
