package unlock

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"keywright.dev/unlock/luks"
)

// resumeID returns the id of the enrolment that the volume's tokens are of, which
// the token of the next version has too.
func (r *Rekeying) resumeID(t *target) (id [16]byte, err error) {
	token := r.tokens(t)[0]
	b, err := hex.DecodeString(token.Resume)
	if err != nil || len(b) != len(id) {
		return id, fail(CodeDevice, fmt.Errorf("token %d of %s has the resume id %q, want 32 hex digits", token.ID, t.path, token.Resume))
	}
	return [16]byte(b), nil
}

// writeToken announces the keyslot of the new version at the end of the numbers
// that other programs count from the beginning of.
func (r *Rekeying) writeToken(e *Enrollment) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		if _, ok := t.token(luks.PurposeBoot); ok {
			return nil
		}
		slot, err := t.volume.LastFreeSlot()
		if err != nil {
			return fail(CodeDevice, fmt.Errorf("looking for a keyslot of %s: all are taken: kill one that nobody needs (cryptsetup luksKillSlot): %w", t.path, err))
		}
		return e.announce(ctx, t, luks.PurposeBoot, slot)
	}
}

// copyPriority gives the new keyslot the priority that somebody gave the old one.
func (r *Rekeying) copyPriority(ctx context.Context, t *target) error {
	if r.stays.from == nil {
		return nil
	}
	_, slot, err := t.slot(luks.PurposeBoot)
	if err != nil {
		return err
	}
	want := t.priority(*r.stays.from)
	if t.priority(slot) == want {
		return nil
	}
	if err := r.Cryptsetup.SetPriority(ctx, t.path, slot, want); err != nil {
		return err
	}
	return t.reread()
}

func (t *target) priority(slot int) int {
	for _, s := range t.volume.Inventory().Keyslots {
		if s.ID == slot {
			return s.Priority
		}
	}
	return 0
}

// checkForeign demands that no keyslot of anybody else was touched.
func (r *Rekeying) checkForeign(_ context.Context, t *target) error {
	if err := t.reread(); err != nil {
		return err
	}
	now := make(map[int]string)
	for _, s := range t.volume.Inventory().Keyslots {
		now[s.ID] = s.Mark
	}
	for slot, mark := range r.foreign {
		if now[slot] != mark {
			return fail(CodeDevice, fmt.Errorf("keyslot %d of %s, which is not ours, was killed or made anew meanwhile: if it was not you who did that, its header is in the copy that was kept", slot, t.path))
		}
	}
	return nil
}

// checkSettled demands that one keyslot of ours for boots is left, in one token.
func (r *Rekeying) checkSettled(ctx context.Context, t *target) error {
	if err := r.checkForeign(ctx, t); err != nil {
		return err
	}
	tokens := r.tokens(t)
	if len(tokens) != 1 || !t.holds(tokens[0]) || !slices.Equal(tokens[0].Keyslots, []int{*t.opens}) {
		return fail(CodeDevice, fmt.Errorf("%s has the tokens %+v for the secret of volume/%s, want one, of version %d for keyslot %d", t.path, tokens, r.Volume, t.secret.Version, *t.opens))
	}
	return nil
}
