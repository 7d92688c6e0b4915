package unlock

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// of has the keyslots of one purpose worked on.
func of(p luks.Purpose, do func(context.Context, *target, luks.Purpose) error) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		err := do(ctx, t, p)
		if err != nil && p == luks.PurposeRecovery {
			return fmt.Errorf("%w; --no-recovery-key enrols without", err)
		}
		return err
	}
}

// clean removes tokens of earlier enrolments and the keyslots that they name,
// so that nothing of ours opens the volume which the service does not count.
func (e *Enrollment) clean(ctx context.Context, t *target) error {
	kept := make(map[luks.Purpose]bool)
	for _, token := range t.volume.OwnTokens() {
		current, err := e.isCurrent(ctx, t, token)
		if err != nil {
			return err
		}
		switch {
		case current && token.Purpose == luks.PurposeRecovery && e.NoRecoveryKey:
			token = t.assigned(token) // its keyslot opened with the key
		case current && !kept[token.Purpose]:
			kept[token.Purpose] = true
			continue
		}
		if err := e.discard(ctx, t, token); err != nil {
			return err
		}
	}
	return t.reread()
}

// assigned names the keyslot that a token is meant for, if there is one.
func (t *target) assigned(token luks.OwnToken) luks.OwnToken {
	if len(token.Keyslots) == 0 && t.hasSlot(token.Slot) {
		token.Keyslots = []int{token.Slot}
	}
	return token
}

// key is what this enrolment puts into a keyslot; empty where it adds none of the
// purpose.
func (t *target) key(p luks.Purpose) secret.Bytes {
	if p == luks.PurposeRecovery {
		return t.secret.Recovery
	}
	return t.secret.Key
}

// isCurrent tells whether a token is this enrolment's, and its keyslot, where it
// has one, this enrolment's secret.
func (e *Enrollment) isCurrent(ctx context.Context, t *target, token luks.OwnToken) (bool, error) {
	key := t.key(token.Purpose)
	if key.Len() == 0 || !t.holds(token) || token.Resume != hex.EncodeToString(t.secret.Resume[:]) {
		return false, nil
	}
	if !t.hasSlotOf(token) {
		return true, nil
	}
	err := e.Cryptsetup.TestKey(ctx, t.path, slotOf(token), key)
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
	e.tellOfOrphan(ctx, t, token)
	return t.drop(ctx, e.Cryptsetup, token)
}

// tellOfOrphan names a keyslot that a token announced and nobody here can open.
func (e *Enrollment) tellOfOrphan(ctx context.Context, t *target, token luks.OwnToken) {
	if len(token.Keyslots) == 0 && t.hasSlot(token.Slot) && e.Cryptsetup.TestKey(ctx, t.path, token.Slot, t.passphrase) != nil {
		e.say("note: keyslot %d of %s may be left of an enrolment that was cut short; if it is not yours, run cryptsetup luksKillSlot %s %d",
			token.Slot, t.path, t.path, token.Slot)
	}
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

// holds tells whether a token is for the secret that is put into a keyslot here.
func (t *target) holds(token luks.OwnToken) bool {
	return token.Volume == t.secret.Volume && token.Version == t.secret.Version
}

// token returns the token for a purpose; the clean step left no other of ours that
// is for this secret.
func (t *target) token(p luks.Purpose) (luks.OwnToken, bool) {
	for _, token := range t.volume.OwnTokens() {
		if t.holds(token) && token.Purpose == p {
			return token, true
		}
	}
	return luks.OwnToken{}, false
}

// writeToken announces the keyslot that will be added.
func (e *Enrollment) writeToken(ctx context.Context, t *target, p luks.Purpose) error {
	if _, ok := t.token(p); ok {
		return nil
	}
	slot, err := t.volume.FreeSlot()
	if err != nil {
		return fmt.Errorf("looking for a keyslot: %w", err)
	}
	return e.announce(ctx, t, p, slot)
}

// announce writes the token that says which keyslot will be added.
func (e *Enrollment) announce(ctx context.Context, t *target, p luks.Purpose, slot int) error {
	if err := t.volume.Room(); err != nil {
		return fmt.Errorf("looking for a keyslot: %w", err)
	}
	number, err := t.volume.FreeToken()
	if err != nil {
		return fmt.Errorf("looking for a token: %w", err)
	}
	token := luks.Token{Volume: t.secret.Volume, Resume: hex.EncodeToString(t.secret.Resume[:]), Purpose: p, Version: t.secret.Version, Slot: slot}
	if err := e.Cryptsetup.ImportToken(ctx, t.path, number, token); err != nil {
		return err
	}
	return t.reread()
}

// addKeyslot adds the keyslot that the token announces.
func (e *Enrollment) addKeyslot(ctx context.Context, t *target, p luks.Purpose) error {
	token, ok := t.token(p)
	if !ok {
		return errNoToken
	}
	if len(token.Keyslots) > 0 || t.hasSlot(token.Slot) {
		return nil // an earlier run did, and the clean step opened it
	}
	if err := t.add(ctx, e.Cryptsetup, t.key(p), token.Slot); err != nil {
		return err
	}
	return t.reread()
}

func (t *target) add(ctx context.Context, c luks.Cryptsetup, key secret.Bytes, slot int) error {
	if t.opens != nil {
		return c.AddKeyslotBy(ctx, t.path, luks.SlotKey{Slot: *t.opens, Key: t.passphrase}, key, slot)
	}
	return c.AddKeyslot(ctx, t.path, t.passphrase, key, slot)
}

var errNoToken = errors.New("the token that was written is gone")

// slot is where this enrolment's secret for a purpose is.
func (t *target) slot(p luks.Purpose) (luks.OwnToken, int, error) {
	token, ok := t.token(p)
	if !ok {
		return token, 0, errNoToken
	}
	return token, slotOf(token), nil
}

// slotOf is the keyslot that a token is assigned to, or else meant for.
func slotOf(token luks.OwnToken) int {
	if len(token.Keyslots) > 0 {
		return token.Keyslots[0]
	}
	return token.Slot
}

// testKeyslot opens the keyslot twice: as cryptsetup does, and as a boot will.
func (e *Enrollment) testKeyslot(ctx context.Context, t *target, p luks.Purpose) error {
	_, slot, err := t.slot(p)
	if err != nil {
		return err
	}
	if err := e.Cryptsetup.TestKey(ctx, t.path, slot, t.key(p)); err != nil {
		return err
	}
	volumeKey, err := t.volume.Unseal(slot, t.key(p))
	volumeKey.Wipe()
	return err
}

// assignToken says in the header that the keyslot opens.
func (e *Enrollment) assignToken(ctx context.Context, t *target, p luks.Purpose) error {
	token, slot, err := t.slot(p)
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
	if token, _ = t.token(p); !slices.Equal(token.Keyslots, []int{slot}) {
		return fmt.Errorf("the token of %s names keyslots %v, want %d", t.path, token.Keyslots, slot)
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
