package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
	"keywright.dev/test/process"
	"keywright.dev/test/shipped"
)

const (
	// hostInGuest is where a guest finds this host's loopback.
	hostInGuest = "10.0.2.2"
	// stopGrace is how long the service may take to end in order.
	stopGrace = 10 * time.Second
	// sequencing is how often it is looked whether the log has caught up.
	sequencing = 100 * time.Millisecond
)

// Service is a running keywright server.
type Service struct {
	*shipped.Server

	program string
}

// ServiceConfig says how a service runs: on loopback, and reachable for guests
// at 10.0.2.2.
type ServiceConfig struct {
	Program string // path of keywright
	Dir     string // where its data folder is or will be
	Port    int    // of the guest listener; 0: a free one
	// EKRoots are PEM files of CAs that vouch for EKs.
	EKRoots []string
	// ReencryptRate is the most that machines reencrypt in a second, in bytes; 0: any.
	ReencryptRate int64
}

// Start starts the service and waits until it said how guests reach it.
func (c ServiceConfig) Start(ctx context.Context) (*Service, error) {
	file, err := c.write()
	if err != nil {
		return nil, fmt.Errorf("configuring the service: %w", err)
	}
	server, err := shipped.Serve(ctx, c.Program, file)
	if err != nil {
		return nil, err
	}
	return &Service{server, c.Program}, nil
}

func (c ServiceConfig) write() (path string, err error) {
	settings := config.Default()
	settings.Server.Data = filepath.Join(c.Dir, "data")
	settings.Server.GuestListen = fmt.Sprintf("127.0.0.1:%d", c.Port)
	settings.Server.MetricsListen = "127.0.0.1:0"
	settings.Server.Names = []string{hostInGuest}
	settings.Attestation.EKRoots = c.EKRoots
	settings.Rotation.ReencryptRate = config.Size(c.ReencryptRate)
	text, err := toml.Marshal(settings)
	if err != nil {
		return "", err
	}
	path = filepath.Join(c.Dir, "keywright.toml")
	return path, os.WriteFile(path, text, 0o600)
}

// Port returns the port of the guest listener.
func (s *Service) Port() int {
	u, err := url.Parse(s.URL)
	if err != nil {
		return 0
	}
	port, _ := strconv.Atoi(u.Port()) // what is no port nobody reaches
	return port
}

// Operate runs keywright as the operator and returns what it prints. Its error
// has what the command complained of.
func (s *Service) Operate(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env = append(os.Environ(), "KEYWRIGHT_ADDR="+s.Socket)
	cmd.Stdout = &out
	err := process.Run(ctx, cmd)
	return out.String(), err
}

// Stop ends the service in order. It may be called again.
func (s *Service) Stop() { s.Server.Stop(stopGrace) }

// LogKey returns the key that verifies the audit log, once everything logged so
// far is under a signed head.
func (s *Service) LogKey(ctx context.Context) (string, error) {
	for {
		output, err := s.Operate(ctx, "status", "--format", "json")
		if err != nil {
			return "", err
		}
		var status api.Status
		if err := json.Unmarshal([]byte(output), &status); err != nil {
			return "", fmt.Errorf("reading the service's status: %w", err)
		}
		if status.Audit.Sequenced == status.Audit.Entries {
			return status.Audit.Key, nil
		}
		select {
		case <-time.After(sequencing):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
