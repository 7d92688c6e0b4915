package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// Network is what a guest's network card finds.
type Network int

const (
	// NetworkUp is one on which the ports to reach answer, and DHCP does.
	NetworkUp Network = iota
	// NetworkSilent is one with a carrier on which nothing answers.
	NetworkSilent
	// NetworkUnplugged is none: there is no carrier.
	NetworkUnplugged
)

const (
	// nowhere is a character device that swallows what is sent to it.
	nowhere = "nowhere"
	silence = "silence"
)

// SetNetwork changes what the guest's network card finds.
func (r *Run) SetNetwork(ctx context.Context, n Network) error {
	if err := r.monitor.network(ctx, n); err != nil {
		return fmt.Errorf("changing the network of %s: %w", r.name, err)
	}
	return nil
}

// Press types lower-case letters, spaces and line feeds on the guest's keyboard,
// which its screen has, not its serial console.
func (r *Run) Press(ctx context.Context, text []byte) error {
	for _, c := range text {
		key, err := keyCode(c)
		if err == nil {
			err = r.monitor.do(ctx, "send-key", map[string]any{"keys": []any{map[string]string{"type": "qcode", "data": key}}})
		}
		if err != nil {
			return fmt.Errorf("pressing a key of %s: %w", r.name, err)
		}
	}
	return nil
}

// keyCode names a key as QEMU does.
func keyCode(c byte) (string, error) {
	switch {
	case c >= 'a' && c <= 'z':
		return string(rune(c)), nil
	case c == ' ':
		return "spc", nil
	case c == '\n':
		return "ret", nil
	default:
		return "", errors.New("there is no such key here")
	}
}

// monitor speaks QEMU's machine protocol (docs/interop/qmp-spec).
type monitor struct {
	mu      sync.Mutex
	conn    net.Conn
	answers *json.Decoder
	silent  bool // the network is
}

// monitorAnswer is an answer, or an event or greeting, which have neither field.
type monitorAnswer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Description string `json:"desc"`
	} `json:"error"`
}

// newMonitor takes over our end of a monitor's socket.
func newMonitor(socket *os.File) (*monitor, error) {
	defer socket.Close()
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, err
	}
	return &monitor{conn: conn, answers: json.NewDecoder(conn)}, nil
}

// begin ends the greeting and sets what the guest finds when it starts.
func (m *monitor) begin(ctx context.Context, n Network) error {
	err := m.do(ctx, "qmp_capabilities", nil)
	if err == nil {
		err = m.network(ctx, n)
	}
	if err == nil {
		err = m.do(ctx, "cont", nil)
	}
	if err != nil {
		return fmt.Errorf("talking to QEMU's monitor: %w", err)
	}
	return nil
}

func (m *monitor) network(ctx context.Context, n Network) error {
	if err := m.do(ctx, "set_link", map[string]any{"name": netdev, "up": n != NetworkUnplugged}); err != nil {
		return err
	}
	var err error
	switch silent := n == NetworkSilent; {
	case silent == m.silent:
		return nil
	case silent:
		err = m.do(ctx, "object-add", map[string]any{
			"qom-type": "filter-redirector", "id": silence, "netdev": netdev, "queue": "all", "outdev": nowhere,
		})
	default:
		err = m.do(ctx, "object-del", map[string]any{"id": silence})
	}
	m.silent = n == NetworkSilent && err == nil
	return err
}

// do has QEMU carry out one command.
func (m *monitor) do(ctx context.Context, command string, arguments map[string]any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = m.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for {
		var answer monitorAnswer
		switch err := m.answers.Decode(&answer); {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", command, answer.Error.Description)
		case answer.Return != nil:
			return nil
		}
	}
}
