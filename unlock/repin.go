package unlock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// PinService is what is asked which service keys to pin; [*api.GuestClient] is one.
type PinService interface {
	ServiceKeys(ctx context.Context, r api.ServiceKeysRequest) (api.ServiceKeysResponse, error)
}

// PinServer is one of the service's servers, as it is asked that.
type PinServer struct {
	Host string // for people
	PinService
}

// Repinning has the machine pin the service identity keys that the service has now:
// in its configuration, and in every initramfs. What says which they are is signed by
// a key that is pinned already. All fields are required but Initramfs.
//
// A file beside the configuration tells that the initramfs is behind it: cut anywhere,
// the next run goes on. Until a boot shows the service that it pins the current key,
// the service answers with the one before.
type Repinning struct {
	ConfigPath string
	RunDir     RunDir
	// Servers returns the service's servers, which are asked one after the other.
	Servers func(c *Config) ([]PinServer, error)
	// Initramfs makes every initramfs anew, and stages the boots that follow; nil where
	// this system makes its own otherwise.
	Initramfs func(ctx context.Context) error
	// Out receives a line "step: NAME" before each step, and notes.
	Out io.Writer
}

// The steps of taking over service keys; beside them [StepConfig] and [StepInitramfs].
const (
	StepAskPins    Step = "ask-service-keys"
	StepRecordPins Step = "record-service-keys"
	StepPinned     Step = "finish-service-keys"
)

// RepinSteps returns the names of the steps that go through, in their order.
func RepinSteps() []Step {
	return []Step{StepAskPins, StepRecordPins, StepConfig, StepInitramfs, StepPinned}
}

// repinningFile stands beside the configuration from before it names other service
// keys until every initramfs has it.
const repinningFile = "repinning"

// Run takes the service's keys over. changed is false where they are pinned already.
func (r *Repinning) Run(ctx context.Context) (changed bool, err error) {
	unlock, err := (&Enrollment{RunDir: r.RunDir}).lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	c, err := LoadConfig(r.ConfigPath)
	if err != nil {
		return false, err
	}
	keys, err := r.ask(ctx, c)
	if err != nil {
		return false, fmt.Errorf("asking which service keys to pin: %w", err)
	}
	begun, err := r.begun()
	if err != nil || !begun && slices.Equal(c.ServiceKeys, keys) {
		return false, err
	}
	if err := r.configure(c, keys); err != nil {
		return false, err
	}
	if err := r.initramfs(ctx); err != nil {
		return false, err
	}
	r.step(StepPinned)
	return true, removeDurably(r.mark())
}

func (r *Repinning) mark() string { return filepath.Join(filepath.Dir(r.ConfigPath), repinningFile) }

// begun tells whether an earlier run was cut before every initramfs was made.
func (r *Repinning) begun() (bool, error) {
	_, err := os.Stat(r.mark())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ask returns the fingerprints, in the form of the configuration.
func (r *Repinning) ask(ctx context.Context, c *Config) (keys []string, err error) {
	r.step(StepAskPins)
	pins, err := c.Pins()
	if err != nil {
		return nil, err
	}
	servers, err := r.Servers(c)
	if err != nil {
		return nil, err
	}
	a := asking{pins: len(pins), note: r.say}
	for _, s := range servers {
		a.hosts = append(a.hosts, s.Host)
	}
	err = a.persist(ctx, func(ctx context.Context) error {
		keys, err = askPins(ctx, servers[a.server], pins[a.pin])
		return err
	})
	return keys, err
}

func askPins(ctx context.Context, to PinServer, pin [32]byte) ([]string, error) {
	var nonce [32]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	answer, err := call(ctx, to.Host, func(ctx context.Context) (api.ServiceKeysResponse, error) {
		return to.ServiceKeys(ctx, api.ServiceKeysRequest{Pin: pin[:], Nonce: nonce[:]})
	})
	if err != nil {
		return nil, err
	}
	pinned, err := answer.Verify(pin, nonce)
	if err != nil {
		return nil, untrusted(to.Host, err)
	}
	var keys []string
	for _, k := range pinned {
		keys = append(keys, exchange.FormatFingerprint(k))
	}
	return keys, nil
}

// configure writes the configuration, behind the mark.
func (r *Repinning) configure(c *Config, keys []string) error {
	if slices.Equal(c.ServiceKeys, keys) {
		return nil // an earlier run did
	}
	if err := writableConfig(r.ConfigPath); err != nil {
		return fmt.Errorf("%w: write it there, and make the initramfs anew: service_keys = [%q]", err, strings.Join(keys, `", "`))
	}
	r.step(StepRecordPins)
	if err := writeDurably(r.mark(), nil, 0o644); err != nil {
		return err
	}
	r.step(StepConfig)
	c.ServiceKeys = keys
	return c.Write(r.ConfigPath)
}

func (r *Repinning) initramfs(ctx context.Context) error {
	r.step(StepInitramfs)
	if r.Initramfs == nil {
		r.say("note: this system has no initramfs-tools: make its initramfs, or its image, anew with %s", r.ConfigPath)
		return nil
	}
	return r.Initramfs(ctx)
}

func (r *Repinning) step(s Step) { r.say("step: %s", s) }

func (r *Repinning) say(format string, args ...any) {
	(&Enrollment{Out: r.Out}).say(format, args...)
}
