package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/shipped"
)

const (
	stopGrace   = 30 * time.Second
	readyWithin = 30 * time.Second
)

// Service is a real service in a process of its own, which can be stopped,
// killed and started again over the same data.
type Service struct {
	// URL, Pin and Socket are what it announces: the guest listener, the
	// fingerprint of the service identity key, and the operators' socket.
	URL    string
	Pin    [32]byte
	Socket string

	program, dir, listen string
	server               *shipped.Server
}

// BuildService builds the keywright program into dir, as make build does, and
// returns its path.
func BuildService(ctx context.Context, dir string) (string, error) {
	return filepath.Join(dir, "keywright"), shipped.Build(ctx, dir, "keywright")
}

// NewService returns a service of program with its data in dir. It does not run
// yet.
func NewService(program, dir string) *Service {
	return &Service{program: program, dir: dir, listen: ownAddress(os.Getpid()) + ":0"}
}

// ownAddress is a loopback address that is this process's alone. A service that
// starts again wants the port that it had: on the address that everybody uses,
// another process, or a connection to one, may have taken it meanwhile.
func ownAddress(pid int) string {
	const first, last = 64 << 16, 127 << 16 // 127.64.0.0 to 127.126.255.255
	n := first + pid%(last-first)
	return netip.AddrFrom4([4]byte{127, byte(n >> 16), byte(n >> 8), byte(n)}).String()
}

// Data returns the data folder.
func (s *Service) Data() string { return filepath.Join(s.dir, "data") }

// Start starts the service and returns once it is ready. Started again, it
// listens where it did before.
func (s *Service) Start(ctx context.Context) error {
	config := filepath.Join(s.dir, "keywright.toml")
	text := fmt.Sprintf("[server]\ndata = %q\nguest_listen = %q\nmetrics_listen = \"127.0.0.1:0\"\n", s.Data(), s.listen)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configuring the service: %w", err)
	}
	// Not ended by ctx: its owner stops or kills it.
	server, err := shipped.Serve(context.WithoutCancel(ctx), s.program, config)
	if err != nil {
		return err
	}
	s.server = server
	err = s.hear()
	if err == nil {
		err = s.waitReady(ctx)
	}
	if err != nil {
		server.Kill()
		return fmt.Errorf("starting the service: %w: %s", err, server.LastWords())
	}
	return nil
}

// hear takes what the service announces.
func (s *Service) hear() error {
	said := s.server
	pin, err := exchange.ParseFingerprint(said.Key)
	if err != nil {
		return fmt.Errorf("reading what it announces: %w", err)
	}
	if s.URL == "" {
		s.URL, s.Socket, s.Pin = said.URL, said.Socket, pin
		s.listen = strings.TrimPrefix(said.URL, "https://")
	}
	// Machines use these while the service starts again.
	if s.URL != said.URL || s.Socket != said.Socket || s.Pin != pin {
		return errors.New("reading what it announces: it is not where it was, or not who it was")
	}
	return nil
}

func (s *Service) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	operator := s.Operator()
	defer operator.Close()
	for {
		status, err := operator.Status(ctx)
		if err == nil && status.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for it to be ready: %w", errors.Join(ctx.Err(), err))
		case <-s.server.Done():
			return errors.New("it ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Operator returns a client on the operators' socket.
func (s *Service) Operator() *api.OperatorClient { return api.NewOperatorClient(s.Socket) }

// PID returns the process id of the service that runs.
func (s *Service) PID() int { return s.server.PID() }

// Stop stops the service in order; its error is what it said if it did not end
// well.
func (s *Service) Stop() error {
	s.server.Stop(stopGrace)
	if err := s.server.Err(); err != nil {
		return fmt.Errorf("stopping the service: %w: %s", err, s.server.LastWords())
	}
	return nil
}

// Kill ends the service with SIGKILL.
func (s *Service) Kill() { s.server.Kill() }
