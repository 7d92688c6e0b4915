package unlock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
)

// evening is a real boot with a prompt beside it, at which nobody sits. Its time
// is that of a bubble.
type evening struct {
	*rig
	unlock.Beside
	began, asked time.Time
	taken        bool
	questions    []string
}

func newEvening(t *testing.T) *evening {
	t.Helper()
	e := &evening{rig: newRig(t), began: time.Now()}
	screen := &unlock.Screen{
		Line:     func(line string) { e.lines = append(e.lines, line) },
		Question: func(question string) { e.questions = append(e.questions, question) },
	}
	e.boot.Clock, e.boot.Deadline, e.boot.Announce = unlock.SystemClock{}, time.Time{}, screen.Announce
	e.Beside = unlock.Beside{
		Boot: e.boot.Run, Volumes: e.boot.Volumes, Clock: e.boot.Clock, After: e.began.Add(unlock.DefaultPromptAfter), Screen: screen,
		Ask: func(ctx context.Context, _ string) (secret.Bytes, error) {
			e.asked = time.Now()
			<-ctx.Done()
			e.taken = true
			return secret.Bytes{}, ctx.Err()
		},
		Open: func(context.Context, unlock.Volume, secret.Bytes) error { return errors.New("nobody typed anything") },
	}
	return e
}

// pass has the boot end, and returns how long it took.
func (e *evening) pass(t *testing.T) time.Duration {
	t.Helper()
	require.NoError(t, e.Run(t.Context()))
	assert.Contains(t, e.events, "open root with key of vol-a")
	return time.Since(e.began)
}

// The question appears on time whatever it is that does not answer, and goes when
// it does: at most one wait later, or one race that nobody won.
func TestWhateverComesLateTakesThePromptAway(t *testing.T) {
	unreachable := errors.New("connect: network is unreachable")
	for name, c := range map[string]struct {
		late, within time.Duration
		hangs        bool
	}{
		"DHCP answers at 90 s":            {late: 90 * time.Second, within: 30 * time.Second},
		"the service starts at 5 minutes": {late: 5 * time.Minute, within: 30 * time.Second},
		"it does, and another hangs":      {late: 5 * time.Minute, within: 45 * time.Second, hangs: true},
		"the service comes back tomorrow": {late: 24 * time.Hour, within: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEvening(t)
				e.service.challenge = func(context.Context) error {
					if time.Since(e.began) < c.late {
						return unreachable
					}
					return nil
				}
				if c.hangs {
					hanging := &fakeService{journal: e.journal, challenge: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
					e.boot.Servers = append([]unlock.Server{{Host: "hangs", Service: hanging}}, e.boot.Servers...)
				}
				took := e.pass(t)
				assert.GreaterOrEqual(t, took, c.late)
				assert.LessOrEqual(t, took, c.late+c.within)
				assert.Equal(t, unlock.DefaultPromptAfter, e.asked.Sub(e.began))
				assert.True(t, e.taken)
				require.NotEmpty(t, e.questions)
				for _, q := range e.questions {
					assert.Regexp(t, `^keywright KW-1501 unavailable at .*network is unreachable.*; next try \d+ s; passphrase: $`, q)
				}
				for _, line := range e.lines {
					assert.NotContains(t, line, "passphrase")
				}
			})
		})
	}
}

func TestLostResponseWhileThePromptStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEvening(t)
		e.service.script = append(e.service.script, func(q api.ReleaseRequest) (api.ReleaseResponse, error) {
			time.Sleep(unlock.DefaultPromptAfter)
			synctest.Wait()
			return lost(q)
		})
		assert.Less(t, e.pass(t), unlock.DefaultPromptAfter+5*time.Second)
		assert.Len(t, e.service.statements, 2)
		assert.True(t, e.taken)
		assert.Len(t, e.questions, 1)
	})
}

func TestEnterAloneIsAskedAgain(t *testing.T) {
	b := newBeside()
	close(b.late)
	done := b.start(t)
	for _, text := range []string{"", "", "one"} {
		<-b.keyboard.questions
		b.keyboard.answers <- text
	}
	require.ErrorIs(t, <-done, unlock.ErrByPassphrase)
	assert.Empty(t, b.lines, "nothing was tried with it")
}

// However much there is to say, the next try stands at the end.
func TestLongReasonLeavesRoomForTheNextTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEvening(t)
		e.service.challenge = func(context.Context) error {
			if time.Since(e.began) < time.Minute {
				return errors.New(strings.Repeat("dial tcp: no route to host ", 40))
			}
			return nil
		}
		e.pass(t)
		for _, line := range e.lines {
			assert.Regexp(t, `; next try \d+ s$`, line)
			assert.LessOrEqual(t, len(line), 300)
		}
	})
}
