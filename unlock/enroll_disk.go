package unlock

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"keywright.dev/unlock/luks"
)

// clean removes tokens of earlier enrolments and the keyslots that they name,
// so that nothing of ours opens the volume which the service does not count.
func (e *Enrollment) clean(ctx context.Context, t *target) error {
	kept := false
	for _, token := range t.volume.OwnTokens() {
		current, err := e.isCurrent(ctx, t, token)
		if err != nil {
			return err
		}
		if current && !kept {
			kept = true
			continue
		}
		if err := e.discard(ctx, t, token); err != nil {
			return err
		}
	}
	return t.reread()
}

// isCurrent tells whether a token is this enrolment's, and its keyslot, where it
// has one, this enrolment's secret.
func (e *Enrollment) isCurrent(ctx context.Context, t *target, token luks.OwnToken) (bool, error) {
	if token.Volume != t.secret.Volume || token.Resume != hex.EncodeToString(t.secret.Resume[:]) {
		return false, nil
	}
	slot := token.Slot
	if len(token.Keyslots) > 0 {
		slot = token.Keyslots[0]
	} else if !t.hasSlot(slot) {
		return true, nil
	}
	err := e.Cryptsetup.TestKey(ctx, t.path, slot, t.secret.Key)
	if errors.Is(err, luks.ErrWrongKey) {
		return false, nil
	}
	return err == nil, err
}

// discard kills the keyslots that a token of ours is assigned to, then removes
// the token. A keyslot that it was only meant for may be anybody's: it stays,
// and the operator hears of it.
func (e *Enrollment) discard(ctx context.Context, t *target, token luks.OwnToken) error {
	for _, slot := range token.Keyslots {
		e.say("note: killing keyslot %d of %s, left by an earlier enrolment", slot, t.path)
	}
	if len(token.Keyslots) == 0 && t.hasSlot(token.Slot) && e.Cryptsetup.TestKey(ctx, t.path, token.Slot, t.passphrase) != nil {
		e.say("note: keyslot %d of %s may be left of an enrolment elsewhere that was cut short; if it is not yours, run cryptsetup luksKillSlot %s %d",
			token.Slot, t.path, t.path, token.Slot)
	}
	return t.drop(ctx, e.Cryptsetup, token)
}

// drop kills the keyslots that a token of ours is assigned to, then removes the
// token.
func (t *target) drop(ctx context.Context, c luks.Cryptsetup, token luks.OwnToken) error {
	for _, slot := range token.Keyslots {
		if err := c.KillSlot(ctx, t.path, slot, t.passphrase); err != nil {
			return err
		}
	}
	return c.RemoveToken(ctx, t.path, token.ID)
}

func (t *target) hasSlot(slot int) bool {
	return slices.ContainsFunc(t.volume.Inventory().Keyslots, func(s luks.InventorySlot) bool { return s.ID == slot })
}

// token returns this enrolment's token; [target.clean] left no other of ours.
func (t *target) token() (luks.OwnToken, bool) {
	for _, token := range t.volume.OwnTokens() {
		if token.Volume == t.secret.Volume {
			return token, true
		}
	}
	return luks.OwnToken{}, false
}

// writeToken announces the keyslot that will be added.
func (e *Enrollment) writeToken(ctx context.Context, t *target) error {
	if _, ok := t.token(); ok {
		return nil
	}
	slot, err := t.volume.FreeSlot()
	if err != nil {
		return fmt.Errorf("looking for a keyslot: %w", err)
	}
	number, err := t.volume.FreeToken()
	if err != nil {
		return fmt.Errorf("looking for a token: %w", err)
	}
	token := luks.Token{Volume: t.secret.Volume, Resume: hex.EncodeToString(t.secret.Resume[:]), Slot: slot}
	if err := e.Cryptsetup.ImportToken(ctx, t.path, number, token); err != nil {
		return err
	}
	return t.reread()
}

// addKeyslot adds the keyslot that the token announces.
func (e *Enrollment) addKeyslot(ctx context.Context, t *target) error {
	token, ok := t.token()
	if !ok {
		return errNoToken
	}
	if len(token.Keyslots) > 0 || t.hasSlot(token.Slot) {
		return nil // an earlier run did, and the clean step opened it
	}
	if err := e.Cryptsetup.AddKeyslot(ctx, t.path, t.passphrase, t.secret.Key, token.Slot); err != nil {
		return err
	}
	return t.reread()
}

var errNoToken = errors.New("the token that was written is gone")

// slot is where this enrolment's secret is.
func (t *target) slot() (luks.OwnToken, int, error) {
	token, ok := t.token()
	switch {
	case !ok:
		return token, 0, errNoToken
	case len(token.Keyslots) > 0:
		return token, token.Keyslots[0], nil
	default:
		return token, token.Slot, nil
	}
}

// testKeyslot opens the keyslot twice: as cryptsetup does, and as a boot will.
func (e *Enrollment) testKeyslot(ctx context.Context, t *target) error {
	_, slot, err := t.slot()
	if err != nil {
		return err
	}
	if err := e.Cryptsetup.TestKey(ctx, t.path, slot, t.secret.Key); err != nil {
		return err
	}
	volumeKey, err := t.volume.Unseal(slot, t.secret.Key)
	volumeKey.Wipe()
	return err
}

// assignToken says in the header that the keyslot opens.
func (e *Enrollment) assignToken(ctx context.Context, t *target) error {
	token, slot, err := t.slot()
	if err != nil {
		return err
	}
	if len(token.Keyslots) == 0 {
		if err := e.Cryptsetup.AssignToken(ctx, t.path, token, slot); err != nil {
			return err
		}
	}
	if err := t.reread(); err != nil {
		return err
	}
	if got := t.volume.OwnSlots(t.secret.Volume); !slices.Equal(got, []int{slot}) {
		return fmt.Errorf("the token of %s names keyslots %v, want %d", t.path, got, slot)
	}
	return nil
}

// foreignSlots returns the keyslots of the volume key that are not ours.
func (t *target) foreignSlots() []int {
	var foreign []int
	for _, slot := range t.volume.Inventory().Keyslots {
		ours := func(token luks.OwnToken) bool { return slices.Contains(token.Keyslots, slot.ID) }
		if slot.Bound && !slices.ContainsFunc(t.volume.OwnTokens(), ours) {
			foreign = append(foreign, slot.ID)
		}
	}
	return foreign
}
