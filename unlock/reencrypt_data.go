package unlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// recovering has the keyslot of the new recovery key worked on, where there is one.
func (r *Reencrypting) recovering(each func(context.Context, *target) error) func(context.Context, *target) error {
	return r.unlessBegun(func(ctx context.Context, t *target) error {
		if !r.recovers() {
			return nil
		}
		return each(ctx, t)
	})
}

// cleanRecovery says which recovery key is put into a keyslot, and removes what a run
// left of it that cannot be gone on with.
func (r *Reencrypting) cleanRecovery(ctx context.Context, t *target) error {
	resume, err := (&Rekeying{Volume: r.Volume}).resumeID(t)
	if err != nil {
		return err
	}
	t.secret.Key.Wipe()
	t.secret.Recovery.Wipe()
	t.secret = exchange.ReleasedSecret{Volume: r.Volume, UUID: t.uuid(), Version: r.Recovery.Number, Recovery: r.Recovery.Key.Clone(), Resume: resume}
	var wrong []int
	for _, token := range t.volume.OwnTokens() {
		if !r.forRecovery(token) || token.Version != r.Recovery.Number || !t.hasSlotOf(token) {
			continue
		}
		err := r.Cryptsetup.TestKey(ctx, t.path, slotOf(token), r.Recovery.Key)
		if err != nil && !errors.Is(err, luks.ErrWrongKey) {
			return err
		}
		if err != nil {
			wrong = append(wrong, token.ID)
		}
	}
	return r.dropRecovery(ctx, t, func(token luks.OwnToken) bool {
		for _, number := range wrong {
			if token.ID == number {
				return true
			}
		}
		return false
	})
}

func (r *Reencrypting) forRecovery(token luks.OwnToken) bool {
	return token.Volume == r.Volume && token.Purpose == luks.PurposeRecovery
}

// dropRecovery kills keyslots of recovery keys and removes their tokens. One that was
// only announced, and is not as we make them, is somebody else's.
func (r *Reencrypting) dropRecovery(ctx context.Context, t *target, which func(luks.OwnToken) bool) error {
	for _, token := range t.volume.OwnTokens() {
		if !r.forRecovery(token) || !which(token) {
			continue
		}
		if announced(t, token) {
			token.Keyslots = []int{token.Slot}
		}
		if err := t.drop(ctx, r.Cryptsetup, token); err != nil {
			return err
		}
	}
	return t.reread()
}

func (r *Reencrypting) tell(ctx context.Context, stage exchange.Stage, v *Volume) error {
	if r.Tell == nil {
		return nil
	}
	about, err := v.report()
	if err != nil {
		return err
	}
	return r.Tell(ctx, stage, v.named(), about)
}

func (r *Reencrypting) tellReady(ctx context.Context, t *target) error {
	return r.tell(ctx, exchange.StageReady, &Volume{ID: r.Volume, Identity: t.identity, LUKS: t.volume})
}

// tellBegun holds what the header has become before any data is changed.
func (r *Reencrypting) tellBegun(ctx context.Context, t *target) error {
	if r.ended {
		return nil
	}
	v, err := readVolume(t.device)
	if err != nil {
		return err
	}
	if v.Under == nil || v.ID != r.Volume {
		return fail(CodeDevice, fmt.Errorf("%s is not under reencryption, or not volume/%s", t.path, r.Volume))
	}
	return r.tell(ctx, exchange.StageBegun, &v)
}

// resume changes the data, to its end.
func (r *Reencrypting) resume(ctx context.Context, t *target) error {
	if r.ended {
		return nil
	}
	err := r.pacedResume(ctx, t)
	if errors.Is(err, luks.ErrCut) && r.Closed {
		if err = r.Cryptsetup.RecoverReencryption(ctx, t.path, r.Secret.Key); err == nil {
			err = r.pacedResume(ctx, t)
		}
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return wrap(CodeOpen, err)
	case errors.Is(err, luks.ErrCut):
		return fail(CodeOpen, fmt.Errorf("a boot recovers it, which an open volume cannot be: reboot the machine: %w", err))
	case errors.Is(err, luks.ErrKilled) && !r.Closed:
		return fail(CodeOpen, fmt.Errorf("restart the machine: what it reads and writes of the volume may hang, and a boot recovers it: %w", err))
	default:
		return wrap(CodeOpen, err)
	}
}

// endHeader tells whether no data is left, and ends the header then: cryptsetup 2.6.1
// takes such a volume for one of which nothing is done, as long as it has the key from
// before, and would decrypt with that what is under the new one. Without, it does
// nothing.
func (r *Reencrypting) endHeader(ctx context.Context, t *target) (ended bool, err error) {
	v, err := readVolume(t.device)
	switch {
	case err != nil || v.Under == nil:
		return err == nil, err
	case !v.Under.All():
		return false, nil
	default:
		return true, r.Cryptsetup.EndReencryption(ctx, t.path, v.LUKS)
	}
}

// ahead is by how much a reencryption may be faster than its rate before it pauses.
const ahead = 10 * time.Second

// pacedResume resumes until the end, and pauses where it is faster than its rate:
// cryptsetup, which knows of no rate, is told to end, as it does behind a whole part
// of the data, and resumed.
func (r *Reencrypting) pacedResume(ctx context.Context, t *target) error {
	p := pacer{rate: r.Rate, clock: r.Clock}
	for {
		if ended, err := r.endHeader(ctx, t); ended || err != nil {
			return err
		}
		running, pause := context.WithCancel(ctx)
		err := r.Cryptsetup.ResumeReencryption(running, t.path, r.Secret.Key, luks.Resumption{Closed: r.Closed, Progress: func(said luks.Progress) {
			if r.Progress != nil {
				r.Progress(said)
			}
			if p.isAhead(said) {
				pause()
			}
		}})
		paused := running.Err() != nil && ctx.Err() == nil
		pause()
		if err == nil || !paused {
			return err
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
}

// pacer compares how far something came with how far it should have.
type pacer struct {
	rate  uint64 // bytes a second; 0: any
	clock Clock
	since time.Time // when the first run began; zero before anything was said
	first uint64    // bytes that were done then
	done  uint64
}

// lead is how much later it should have come as far as it has.
func (p *pacer) lead() time.Duration {
	should := time.Duration(float64(p.done-p.first) / float64(p.rate) * float64(time.Second))
	return should - p.clock.Now().Sub(p.since)
}

func (p *pacer) isAhead(said luks.Progress) bool {
	if p.rate == 0 {
		return false
	}
	if p.since.IsZero() {
		p.since = p.clock.Now().Add(-said.Spent)
		p.first = said.Done - min(said.Done, uint64(float64(said.Rate)*said.Spent.Seconds()))
	}
	p.done = max(said.Done, p.first)
	return p.lead() > ahead
}

func (p *pacer) wait(ctx context.Context) error { return p.clock.Sleep(ctx, max(p.lead(), 0)) }
