// Package shipped builds Keywright's programs as they are shipped, and starts
// the service, for tests that look at it from outside.
package shipped

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"keywright.dev/test/process"
)

// Build builds programs of cmd/ into a folder, as make build does.
func Build(ctx context.Context, dir string, names ...string) error {
	for _, name := range names {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), "keywright.dev/cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := process.Run(ctx, cmd); err != nil {
			return fmt.Errorf("building Keywright's programs: %w", err)
		}
	}
	return nil
}

// Server is a keywright server that runs, and what it announced.
type Server struct {
	*process.Process
	URL    string // for guests
	Key    string // fingerprint of the service identity key, as printed
	Socket string // the operators'
}

// Serve starts the service with a configuration file and returns once it said
// how guests reach it. It ends with ctx.
func Serve(ctx context.Context, program, config string) (*Server, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the service: %w", err)
	}
	defer reader.Close()
	cmd := exec.CommandContext(ctx, program, "server", "--format", "json", "--config", config)
	cmd.Stdout = writer
	running, err := process.Start(cmd)
	_ = writer.Close() // the child has its own
	if err != nil {
		return nil, fmt.Errorf("starting the service: %w", err)
	}
	s := &Server{Process: running}
	if err := s.hear(reader); err != nil {
		running.Kill()
		return nil, fmt.Errorf("starting the service: reading what it announces: %w: %s", err, running.LastWords())
	}
	return s, nil
}

func (s *Server) hear(output *os.File) error {
	var said struct {
		URL    string `json:"guest_url"`
		Key    string `json:"service_key"`
		Socket string `json:"operator_socket"`
	}
	err := json.NewDecoder(output).Decode(&said)
	s.URL, s.Key, s.Socket = said.URL, said.Key, said.Socket
	return err
}
