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

// control is the channel on which QEMU takes commands and tells events: the
// QEMU Machine Protocol.
type control struct {
	conn     net.Conn
	messages *json.Decoder
	patience time.Duration // with QEMU

	mu     sync.Mutex
	last   int       // id of the last command
	events []message // that nobody has awaited yet
}

// message is what QEMU says: its greeting, the answer to a command, or an event.
type message struct {
	ID     int             `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Description string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Status string `json:"status"`
	} `json:"data"`
}

// openControl takes our end of the channel. QEMU finds the first command there
// when it comes up, and tells every event from then on.
func openControl(ours *os.File, patience time.Duration) (*control, error) {
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("opening QEMU's control channel: %w", err)
	}
	c := &control{conn: conn, messages: json.NewDecoder(conn), patience: patience}
	if err := c.send("qmp_capabilities", nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// execute has QEMU carry out a command, whose arguments may be nil.
func (c *control) execute(ctx context.Context, command string, arguments any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.send(command, arguments); err != nil {
		return err
	}
	answer, err := c.receive(ctx, func(m message) bool { return m.ID == c.last })
	switch {
	case err != nil:
		return fmt.Errorf("awaiting QEMU's answer to %s: %w", command, err)
	case answer.Error != nil:
		return fmt.Errorf("having QEMU %s: %s", command, answer.Error.Description)
	default:
		return nil
	}
}

// await returns the next event of a name and, where they are given, one of these
// statuses.
func (c *control) await(ctx context.Context, name string, statuses ...string) (message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := func(m message) bool { return m.Event == name && m.hasStatus(statuses) }
	for i, event := range c.events {
		if wanted(event) {
			c.events = c.events[i+1:]
			return event, nil
		}
	}
	c.events = nil
	event, err := c.receive(ctx, wanted)
	if err != nil {
		return message{}, fmt.Errorf("awaiting QEMU's event %s: %w", name, err)
	}
	return event, nil
}

func (m message) hasStatus(statuses []string) bool {
	for _, status := range statuses {
		if m.Data.Status == status {
			return true
		}
	}
	return len(statuses) == 0
}

func (c *control) send(command string, arguments any) error {
	c.last++
	text, err := json.Marshal(struct {
		ID        int    `json:"id"`
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{c.last, command, arguments})
	if err != nil {
		return fmt.Errorf("asking QEMU for %s: %w", command, err)
	}
	if _, err := c.conn.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("asking QEMU for %s: %w", command, err)
	}
	return nil
}

// receive reads until a message is wanted, and keeps the events before it. Once
// it has lost its patience the channel is of no use any more.
func (c *control) receive(ctx context.Context, wanted func(message) bool) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		// A connection that is closed already ends the reading as well.
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	for {
		var m message
		if err := c.messages.Decode(&m); err != nil {
			return message{}, errors.Join(ctx.Err(), err)
		}
		if wanted(m) {
			return m, nil
		}
		if m.Event != "" {
			c.events = append(c.events, m)
		}
	}
}

func (c *control) Close() error { return c.conn.Close() }
