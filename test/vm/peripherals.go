package vm

import (
	"context"
	"errors"
	"fmt"
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
	if err := r.setNetwork(ctx, n); err != nil {
		return fmt.Errorf("changing the network of %s: %w", r.name, err)
	}
	return nil
}

func (r *Run) setNetwork(ctx context.Context, n Network) error {
	if err := r.control.execute(ctx, "set_link", map[string]any{"name": netdev, "up": n != NetworkUnplugged}); err != nil {
		return err
	}
	var err error
	switch silent := n == NetworkSilent; {
	case silent == r.silent:
		return nil
	case silent:
		err = r.control.execute(ctx, "object-add", map[string]any{
			"qom-type": "filter-redirector", "id": silence, "netdev": netdev, "queue": "all", "outdev": nowhere,
		})
	default:
		err = r.control.execute(ctx, "object-del", map[string]any{"id": silence})
	}
	r.silent = n == NetworkSilent && err == nil
	return err
}

// Press types lower-case letters, spaces and line feeds on the guest's keyboard,
// which its screen has, not its serial console.
func (r *Run) Press(ctx context.Context, text []byte) error {
	for _, c := range text {
		key, err := keyCode(c)
		if err == nil {
			err = r.control.execute(ctx, "send-key", map[string]any{"keys": []any{map[string]string{"type": "qcode", "data": key}}})
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
