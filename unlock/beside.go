package unlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keywright.dev/kms/secret"
)

// DefaultPromptAfter is when a boot asks for a passphrase beside its trying.
const DefaultPromptAfter = 30 * time.Second

// Beside asks for passphrases beside a boot that goes on trying: whichever comes
// first opens the volumes. All fields are required.
type Beside struct {
	// Boot tries until its context ends, and opens all volumes or none.
	Boot    func(ctx context.Context) error
	Volumes []Volume
	// Ask asks for a passphrase until ctx ends, which takes the question away. It
	// may come back empty, and is asked again then.
	Ask func(ctx context.Context, question string) (secret.Bytes, error)
	// Open opens a volume by a passphrase, as the distribution does.
	Open  func(ctx context.Context, v Volume, passphrase secret.Bytes) error
	Clock Clock
	// After is when to ask.
	After time.Time
	// Screen is also what Boot announces on.
	Screen *Screen

	booted chan error // what Boot came to; once
	over   bool       // and it has been received
}

// ErrByPassphrase means that the volumes are open, by passphrase.
var ErrByPassphrase = errors.New("the volumes were opened by passphrase")

// Run returns nil once the boot has opened the volumes, [ErrByPassphrase] once
// passphrases have, and the boot's error where it ended before a passphrase was
// asked for: then whoever asks for one next need not compete with it.
func (b *Beside) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.booted = make(chan error, 1)
	go func() { b.booted <- b.Boot(ctx) }()
	if ended, err := b.alone(ctx); ended {
		return err
	}
	err := b.openByPassphrase(ctx)
	// What is released now must not be opened behind a hand-over.
	cancel()
	if !b.over {
		if booted := <-b.booted; booted == nil {
			return nil // it was quicker after all
		}
	}
	return err
}

// alone waits for the boot until it is time to ask.
func (b *Beside) alone(ctx context.Context) (ended bool, err error) {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	late := make(chan struct{})
	go func() {
		defer close(late)
		_ = b.Clock.Sleep(waiting, b.After.Sub(b.Clock.Now()))
	}()
	select {
	case err := <-b.booted:
		b.over = true
		return true, err
	case <-late:
		return false, nil
	}
}

// openByPassphrase asks until every volume is open. A passphrase is tried on the
// volumes that follow before they are asked for.
func (b *Beside) openByPassphrase(ctx context.Context) error {
	var last secret.Bytes
	defer func() { last.Wipe() }()
	for _, v := range b.Volumes {
		if last.Len() > 0 && b.Open(ctx, v, last) == nil {
			continue
		}
		for {
			last.Wipe()
			passphrase, err := b.askUntilTyped(ctx, v)
			if errors.Is(err, errBooted) {
				return nil
			}
			if err != nil {
				return err
			}
			last = passphrase
			if err = b.Open(ctx, v, last); err == nil {
				break
			}
			b.Screen.Announce(printable(fmt.Sprintf("keywright: opening %s by passphrase: %v", v.Config.Device, err)))
		}
	}
	return ErrByPassphrase
}

var errBooted = errors.New("the boot opened the volumes")

// emptyPause keeps a program that answers nothing from being started in a loop.
const emptyPause = time.Second

// askUntilTyped asks again where only Enter was pressed, as people do to see
// whether a console lives.
func (b *Beside) askUntilTyped(ctx context.Context, v Volume) (secret.Bytes, error) {
	for {
		passphrase, err := b.ask(ctx, v)
		if err != nil || passphrase.Len() > 0 {
			return passphrase, err
		}
		if err := b.Clock.Sleep(ctx, emptyPause); err != nil {
			return passphrase, err
		}
	}
}

// ask asks for one passphrase. A boot that succeeds meanwhile takes the question
// away; one that fails for good leaves it.
func (b *Beside) ask(ctx context.Context, v Volume) (secret.Bytes, error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	type answer struct {
		passphrase secret.Bytes
		err        error
	}
	answers := make(chan answer, 1)
	b.Screen.asking.Store(true)
	defer b.Screen.asking.Store(false)
	go func() {
		passphrase, err := b.Ask(asking, "Please unlock disk "+v.Config.Name+": ")
		answers <- answer{passphrase, err}
	}()
	booted := b.booted
	if b.over {
		booted = nil
	}
	for {
		select {
		case err := <-booted:
			b.over, booted = true, nil
			if err == nil {
				stop()
				given := <-answers
				given.passphrase.Wipe()
				return secret.Bytes{}, errBooted
			}
		case given := <-answers:
			return given.passphrase, given.err
		}
	}
}
