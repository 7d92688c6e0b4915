package unlock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
)

// gate is a clock whose sleep ends when it is told to.
type gate struct{ late chan struct{} }

func (gate) Now() time.Time { return time.Unix(0, 0) }

func (g gate) Sleep(ctx context.Context, _ time.Duration) error {
	select {
	case <-g.late:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keyboard is a person at the prompt: questions come, answers are typed.
type keyboard struct {
	questions chan string
	answers   chan string
	taken     chan struct{} // a question was taken away
}

func newKeyboard() *keyboard {
	return &keyboard{questions: make(chan string, 8), answers: make(chan string, 8), taken: make(chan struct{}, 8)}
}

func (k *keyboard) ask(ctx context.Context, question string) (secret.Bytes, error) {
	k.questions <- question
	select {
	case text := <-k.answers:
		return secret.Copy([]byte(text)), nil
	case <-ctx.Done():
		k.taken <- struct{}{}
		return secret.Bytes{}, ctx.Err()
	}
}

// beside is a boot with a prompt beside it, of two volumes.
type beside struct {
	unlock.Beside
	keyboard *keyboard
	late     chan struct{}
	booted   chan error
	stopped  bool
	opened   []string
	keys     map[string]string // passphrases by volume
	lines    []string
}

func newBeside() *beside {
	b := &beside{
		keyboard: newKeyboard(), late: make(chan struct{}), booted: make(chan error, 1),
		keys: map[string]string{"root": "one", "data": "one"},
	}
	b.Beside = unlock.Beside{
		Boot: func(ctx context.Context) error {
			select {
			case err := <-b.booted:
				return err
			case <-ctx.Done():
				b.stopped = true
				return ctx.Err()
			}
		},
		Volumes: []unlock.Volume{{Config: unlock.VolumeConfig{Name: "root"}}, {Config: unlock.VolumeConfig{Name: "data"}}},
		Ask:     b.keyboard.ask,
		Open: func(_ context.Context, v unlock.Volume, passphrase secret.Bytes) error {
			if string(passphrase.Expose()) != b.keys[v.Config.Name] {
				return errors.New("no keyslot opens with it")
			}
			b.opened = append(b.opened, v.Config.Name)
			return nil
		},
		Clock: gate{b.late},
		Screen: &unlock.Screen{
			Line:     func(line string) { b.lines = append(b.lines, line) },
			Question: func(question string) { b.lines = append(b.lines, question) },
		},
	}
	return b
}

func (b *beside) start(t *testing.T) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- b.Run(t.Context()) }()
	return done
}

func TestPromptWaitsForTheBoot(t *testing.T) {
	for _, want := range []error{nil, errors.New("refused for good")} {
		b := newBeside()
		b.booted <- want
		assert.Equal(t, want, b.Run(t.Context()))
		assert.Empty(t, b.keyboard.questions)
	}
}

func TestBootTakesThePromptAway(t *testing.T) {
	b := newBeside()
	close(b.late)
	done := b.start(t)
	assert.Equal(t, "Please unlock disk root: ", <-b.keyboard.questions)
	b.booted <- nil
	require.NoError(t, <-done)
	<-b.keyboard.taken
	assert.Empty(t, b.opened)
}

func TestPassphraseGoesOnAtOnce(t *testing.T) {
	b := newBeside()
	close(b.late)
	done := b.start(t)
	<-b.keyboard.questions
	b.keyboard.answers <- "one"
	require.ErrorIs(t, <-done, unlock.ErrByPassphrase)
	assert.Equal(t, []string{"root", "data"}, b.opened, "the passphrase is tried on what follows")
	assert.Empty(t, b.keyboard.questions)
	assert.True(t, b.stopped, "the boot has ended before control goes on")
}

func TestWrongPassphraseIsAskedForAgain(t *testing.T) {
	b := newBeside()
	b.keys["data"] = "two"
	close(b.late)
	done := b.start(t)
	for _, text := range []string{"wrong", "one", "two"} {
		<-b.keyboard.questions
		b.keyboard.answers <- text
	}
	require.ErrorIs(t, <-done, unlock.ErrByPassphrase)
	assert.Equal(t, []string{"root", "data"}, b.opened)
	require.Len(t, b.lines, 1)
	assert.Contains(t, b.lines[0], "no keyslot opens with it")
	assert.NotContains(t, b.lines[0], "wrong")
}

func TestPromptStaysWhenTheBootFailsForGood(t *testing.T) {
	b := newBeside()
	close(b.late)
	done := b.start(t)
	<-b.keyboard.questions
	b.booted <- errors.New("refused for good")
	b.keyboard.answers <- "one"
	require.ErrorIs(t, <-done, unlock.ErrByPassphrase)
	assert.Equal(t, []string{"root", "data"}, b.opened)
}

func TestPromptThatCannotAskIsAnError(t *testing.T) {
	b := newBeside()
	b.Ask = func(context.Context, string) (secret.Bytes, error) { return secret.Bytes{}, errors.New("no terminal") }
	close(b.late)
	require.ErrorContains(t, b.Run(t.Context()), "no terminal")
	assert.True(t, b.stopped)
}
