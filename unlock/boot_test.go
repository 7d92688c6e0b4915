package unlock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock"
)

func TestBootOpensEveryVolume(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.run(t))
	assert.Equal(t, []string{"quote", "request", "extend", "open root with key of vol-a", "open data with key of vol-b"}, r.events)
	value, err := r.tpm.PCR15()
	require.NoError(t, err)
	assert.Equal(t, exchange.Extend([32]byte{}, exchange.ReleaseEvent(r.service.release.ID[:])), value)
	receipt, err := os.ReadFile(filepath.Join(r.dir, "run", "receipt"))
	require.NoError(t, err)
	assert.Equal(t, "signed entry", string(receipt))
	info, err := os.Stat(filepath.Join(r.dir, "run", "receipt"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	opened := r.recorded(t)
	require.Len(t, opened, 2)
	assert.Equal(t, "vol-a", opened[0].Volume)
	assert.True(t, opened[0].Root)
	assert.Empty(t, r.lines)
}

func TestBootStatesWhatItFound(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.run(t))
	s := r.service.statements[0]
	assert.Equal(t, r.tpm.Machine(), s.Machine)
	assert.Equal(t, r.service.pin(), s.ServiceKey)
	require.Len(t, s.Volumes, 2)
	assert.Equal(t, r.boot.Volumes[1].Identity, s.Volumes[1].Identity)
	details, err := exchange.ParseDetails[exchange.BootDetails](s.Details)
	require.NoError(t, err)
	require.Len(t, details.Volumes, 2)
	assert.Equal(t, []exchange.LUKSToken{{ID: 0, Type: "keywright", Slots: []int{2}, Volume: "vol-a", Version: 1}, {ID: 5, Type: "clevis", Slots: []int{0}}}, details.Volumes[0].Tokens)
}

// TestAttack10NothingIsOpenedBeforePCR15IsExtended and nothing is asked after
// it: a rogue root finds PCR 15 extended, whatever became of the boot.
func TestAttack10NothingIsOpenedBeforePCR15IsExtended(t *testing.T) {
	for name, spoil := range map[string]func(*rig){
		"good":         func(*rig) {},
		"open fails":   func(r *rig) { r.opener.broken = "root" },
		"wrong answer": func(r *rig) { r.service.release.Secrets = r.service.release.Secrets[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			spoil(r)
			_ = r.run(t)
			require.Equal(t, []string{"quote", "request", "extend"}, r.events[:3])
			for _, event := range r.events[3:] {
				assert.NotContains(t, []string{"request", "quote"}, event)
			}
			before := len(r.events)
			failed(t, unlock.CodeSpent, r.run(t))
			assert.Len(t, r.events, before, "a second boot asks nothing")
		})
	}
}

func TestExtendFailsAndTheMachineIsReset(t *testing.T) {
	r := newRig(t)
	r.tpm.stuck = errors.New("the TPM does not extend")
	failed(t, unlock.CodeTPM, r.run(t))
	assert.Equal(t, []string{"quote", "request", "extend"}, r.events)
	assert.Equal(t, 1, r.reboots)
	assert.Contains(t, r.lines[0], "resetting the machine")
	_, err := os.Stat(filepath.Join(r.dir, "run", "receipt"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// TestAttack11ReleaseForAnotherHeaderOpensNothing holds the client's half: the
// identity that the service expects is the one that was validated.
func TestAttack11ReleaseForAnotherHeaderOpensNothing(t *testing.T) {
	for name, spoil := range map[string]func(*exchange.Release){
		"identity":   func(e *exchange.Release) { e.Secrets[1].Identity[0] ^= 1 },
		"UUID":       func(e *exchange.Release) { e.Secrets[1].UUID = "8c3a1f40-0000-4a57-9c5f-0d9d3c2b1a02" },
		"volume":     func(e *exchange.Release) { e.Secrets[1].Volume = "vol-c" },
		"twice":      func(e *exchange.Release) { e.Secrets[1] = e.Secrets[0] },
		"one missed": func(e *exchange.Release) { e.Secrets = e.Secrets[:1] },
		"one more":   func(e *exchange.Release) { e.Secrets = append(e.Secrets, e.Secrets[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			spoil(&r.service.release)
			failed(t, unlock.CodeOpen, r.run(t))
			assert.Equal(t, []string{"quote", "request", "extend"}, r.events)
		})
	}
}

// TestAttack31ForgedAnswersAreNotDecrypted has a balancer answer by itself.
func TestAttack31ForgedAnswersAreNotDecrypted(t *testing.T) {
	for name, forge := range map[string]func(t *testing.T, r *rig){
		"another key": func(t *testing.T, r *rig) { r.service.key = newKey(t) },
		"the pinned key's name over another signature": func(t *testing.T, r *rig) {
			pinned := spki(r.service.key)
			r.service.key = newKey(t)
			r.service.forge = func(s *api.Sealed) { s.ServiceKey = pinned }
		},
		"altered": func(_ *testing.T, r *rig) {
			r.service.forge = func(s *api.Sealed) { s.Response[len(s.Response)-1] ^= 1 }
		},
		"an answer to another statement": func(t *testing.T, r *rig) {
			var first *api.ReleaseResponse
			r.service.script = append(r.service.script, func(q api.ReleaseRequest) (api.ReleaseResponse, error) {
				honest, err := r.service.answer(r.service.statements[0], q.Statement)
				require.NoError(t, err)
				first = &honest
				return lost(q)
			})
			r.service.forge = func(s *api.Sealed) {
				if first != nil {
					*s = first.Sealed
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			forge(t, r)
			failed(t, unlock.CodeUntrusted, r.run(t))
			assert.NotContains(t, r.events, "extend")
			assert.NotContains(t, strings.Join(r.events, " "), "open")
			assert.Contains(t, r.lines[len(r.lines)-1], "KW-1405")
		})
	}
}

func TestLostResponseIsAskedForAgain(t *testing.T) {
	r := newRig(t)
	r.service.script = append(r.service.script, lost, lost)
	require.NoError(t, r.run(t))
	require.Len(t, r.service.statements, 3)
	assert.NotEqual(t, r.service.statements[0].Challenge, r.service.statements[1].Challenge)
	assert.NotEqual(t, r.service.statements[0].Recipient, r.service.statements[1].Recipient)
	assert.Len(t, r.lines, 2)
}

func TestRefusalIsRetriedUntilTheApproval(t *testing.T) {
	r := newRig(t)
	r.service.script = append(r.service.script, refusal(api.CodePending), refusal(api.CodePending))
	require.NoError(t, r.run(t))
	want := "keywright KW-1207 refused by kw.example:8443 (machine " + exchange.ShortID(r.tpm.Machine()) + "): machine_pending; next try 4 s"
	assert.Equal(t, want, r.lines[0])
}

func TestCountersThatWentBackSayWhatToDo(t *testing.T) {
	r := newRig(t)
	r.service.script = append(r.service.script, refusal(api.CodeCounters))
	require.NoError(t, r.run(t))
	assert.Contains(t, r.lines[0], "counters: a copied vTPM? Give a clone a new one; if this machine was restored, an operator runs keywright machine readmit; next try")
}

func TestDeadlineEndsTheTrying(t *testing.T) {
	r := newRig(t)
	for range 100 {
		r.service.script = append(r.service.script, refusal(api.CodeMeasurement))
	}
	start := r.clock.now
	err := r.run(t)
	assert.Equal(t, unlock.ExitRefused, unlock.ExitCode(failed(t, api.CodeMeasurement, err)))
	assert.LessOrEqual(t, r.clock.now.Sub(start), 90*time.Second)
	assert.Less(t, len(r.service.statements), 12)
	assert.NotContains(t, r.events, "extend")
	assert.NotContains(t, r.lines[len(r.lines)-1], "next try")
}

func TestNobodyAnswers(t *testing.T) {
	r := newRig(t)
	r.service.challenge = func(context.Context) error { return errors.New("connection refused\nby peer") }
	err := r.run(t)
	assert.Equal(t, unlock.ExitUnavailable, unlock.ExitCode(failed(t, api.CodeUnavailable, err)))
	assert.NotContains(t, r.lines[0], "\n")
	assert.Contains(t, r.lines[0], "KW-1501")
}

func TestRetryAfterIsHonouredUpToTheLongestWait(t *testing.T) {
	for asked, want := range map[int]string{12: "next try 12 s", 3600: "next try 30 s"} {
		r := newRig(t)
		r.service.script = append(r.service.script, func(api.ReleaseRequest) (api.ReleaseResponse, error) {
			return api.ReleaseResponse{}, &api.Error{Code: api.CodeRate, Number: api.CodeRate.Number(), Message: "slow down", RetryAfter: asked}
		})
		require.NoError(t, r.run(t))
		assert.Contains(t, r.lines[0], want)
	}
}

func TestNextServiceKeyIsTriedAtOnce(t *testing.T) {
	r := newRig(t)
	r.boot.Pins = [][32]byte{{1}, r.service.pin()}
	r.service.script = append(r.service.script, refusal(api.CodeServiceKey))
	start := r.clock.now
	require.NoError(t, r.run(t))
	assert.Equal(t, start, r.clock.now)
	assert.Equal(t, [32]byte{1}, r.service.statements[0].ServiceKey)
	assert.Equal(t, r.service.pin(), r.service.statements[1].ServiceKey)
}

// A server that hangs is told to stop once another one answered.
func TestHangingServerLosesTheRace(t *testing.T) {
	r := newRig(t)
	ended := make(chan error, 1)
	hanging := &fakeService{journal: r.journal, key: r.service.key, challenge: func(ctx context.Context) error {
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}}
	r.boot.Servers = append([]unlock.Server{{Host: "hangs", Service: hanging}}, r.boot.Servers...)
	require.NoError(t, r.run(t))
	assert.Empty(t, hanging.statements)
	assert.Empty(t, r.lines)
	assert.ErrorIs(t, <-ended, context.Canceled, "not waited for")
}

// A refusal is not signed either, so it keeps the boot from no other server.
func TestServerWithoutAReleaseIsPassedOverOnce(t *testing.T) {
	for name, answer := range map[string]func(api.ReleaseRequest) (api.ReleaseResponse, error){
		"loses it": lost, "refuses": refusal(api.CodeRevoked), "has another key": refusal(api.CodeServiceKey),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var asked atomic.Int32
			gone := make(chan struct{})
			first := &fakeService{journal: r.journal, key: r.service.key}
			first.challenge = func(context.Context) error { asked.Add(1); return nil }
			first.script = append(first.script, func(q api.ReleaseRequest) (api.ReleaseResponse, error) {
				close(gone)
				return answer(q)
			})
			r.service.challenge = func(ctx context.Context) error {
				select {
				case <-gone: // the first race was lost to the other server
				case <-ctx.Done():
				}
				return ctx.Err()
			}
			r.boot.Servers = append([]unlock.Server{{Host: "first", Service: first}}, r.boot.Servers...)
			require.NoError(t, r.run(t))
			assert.Len(t, first.statements, 1)
			assert.EqualValues(t, 1, asked.Load(), "the next race is without it")
			assert.Len(t, r.service.statements, 1)
		})
	}
}

func TestSpentBootAsksNothing(t *testing.T) {
	r := newRig(t)
	r.tpm.Extend(15, exchange.NoReleaseEvent())
	failed(t, unlock.CodeSpent, r.run(t))
	assert.Empty(t, r.events)
	require.Len(t, r.lines, 1)
}

func TestBrokenTPMIsTriedAgain(t *testing.T) {
	r := newRig(t)
	r.tpm.mute = errors.New("the TPM is busy")
	err := r.run(t)
	assert.Equal(t, unlock.ExitFailed, unlock.ExitCode(failed(t, unlock.CodeTPM, err)))
	assert.NotContains(t, r.events, "request")
	assert.Greater(t, len(r.lines), 3)
}
