package vm

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Save has a running machine leave this host: it writes what another QEMU needs
// to go on ([Machine.Incoming]) to a file, as a live migration sends it, the state
// of the TPM included, and ends the run. The disks are what they are by then.
func (r *Run) Save(ctx context.Context, path string) error {
	if err := r.save(ctx, path); err != nil {
		return fmt.Errorf("saving %s to %s: %w%s", r.name, path, err, r.console.tail())
	}
	return r.Wait(ctx)
}

func (r *Run) save(ctx context.Context, path string) error {
	events := map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}}
	if err := r.control.execute(ctx, "migrate-set-capabilities", events); err != nil {
		return err
	}
	if err := r.control.execute(ctx, "migrate", map[string]string{"uri": "exec:cat >" + quote(path)}); err != nil {
		return err
	}
	end, err := r.control.await(ctx, "MIGRATION", "completed", "failed")
	if err != nil {
		return err
	}
	if end.Data.Status != "completed" {
		return errors.New("QEMU could not write it")
	}
	return r.control.execute(ctx, "quit", nil)
}

// incomingArgs has QEMU read what [Run.Save] wrote.
func (m Machine) incomingArgs() []string {
	if m.Incoming == "" {
		return nil
	}
	return []string{"-incoming", "exec:cat " + quote(m.Incoming)}
}

// arrive waits until a machine that was saved goes on: what is typed before is
// lost.
func (m Machine) arrive(ctx context.Context, r *Run) error {
	if m.Incoming == "" {
		return nil
	}
	if _, err := r.control.await(ctx, "RESUME"); err != nil {
		r.Kill()
		return fmt.Errorf("%w: %s", err, r.lastWords())
	}
	return nil
}

// quote makes a word of a shell's of any text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// Reset resets the machine without a word to the guest, as the button does. The
// run of a machine that has not [Machine.Reboots] ends by it.
func (r *Run) Reset(ctx context.Context) error {
	if err := r.control.execute(ctx, "system_reset", nil); err != nil {
		return fmt.Errorf("resetting %s: %w%s", r.name, err, r.console.tail())
	}
	return nil
}

// Wake waits until the guest has suspended to memory, and resumes it.
func (r *Run) Wake(ctx context.Context) error {
	if _, err := r.control.await(ctx, "SUSPEND"); err != nil {
		return fmt.Errorf("waking %s: %w%s", r.name, err, r.console.tail())
	}
	if err := r.control.execute(ctx, "system_wakeup", nil); err != nil {
		return fmt.Errorf("waking %s: %w%s", r.name, err, r.console.tail())
	}
	return nil
}

// Crash ends QEMU and swtpm at once, as when the host loses its power: unlike
// with [Run.Kill] the TPM does not hear that the machine is gone.
func (r *Run) Crash() {
	r.killed.Store(true)
	if r.swtpm != nil {
		r.swtpm.Kill()
	}
	r.Kill()
}
