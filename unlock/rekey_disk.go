package unlock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// staying is what a part of a rekey leaves alone.
type staying struct {
	tokens, slots []int
	// from is the keyslot of the old version, where there is one.
	from *int
}

// read reads the header and demands that it is the volume's.
func (r *Rekeying) read(e *Enrollment) func(context.Context) error {
	return func(context.Context) error {
		if err := e.readDevices(); err != nil {
			return err
		}
		t := e.targets[0]
		if t.identity != r.Identity {
			return fail(CodeDevice, fmt.Errorf("%s has the identity digest %x, want %x: it is not the volume that was enrolled", t.path, t.identity, r.Identity))
		}
		if len(r.tokens(t)) == 0 {
			return r.notOurs()
		}
		r.foreign = make(map[int]string)
		for _, s := range t.volume.Inventory().Keyslots {
			if !r.ours(t, s.ID) {
				r.foreign[s.ID] = s.Mark
			}
		}
		return nil
	}
}

// tokens are those of the volume's secret for boots.
func (r *Rekeying) tokens(t *target) []luks.OwnToken { return t.tokensOf(r.Volume) }

// tokensOf are those for boots of one volume of the service.
func (t *target) tokensOf(volume string) []luks.OwnToken {
	return slices.DeleteFunc(t.bootTokens(), func(token luks.OwnToken) bool { return token.Volume != volume })
}

func (r *Rekeying) ours(t *target, slot int) bool {
	return slices.ContainsFunc(r.tokens(t), func(token luks.OwnToken) bool {
		return slices.Contains(token.Keyslots, slot) || announced(t, token) && token.Slot == slot
	})
}

// announced tells whether a token announces a keyslot that is there, and that may
// be ours: the cut came before the token was assigned to it.
func announced(t *target, token luks.OwnToken) bool {
	return len(token.Keyslots) == 0 && t.volume.MadeAsOurs(token.Slot)
}

// holder returns the token of a version whose keyslot the key opens, an assigned
// one first.
func (r *Rekeying) holder(ctx context.Context, t *target, v SecretVersion) (token luks.OwnToken, slot int, ok bool, err error) {
	candidates := r.tokens(t)
	slices.SortStableFunc(candidates, func(a, b luks.OwnToken) int { return cmp.Compare(len(b.Keyslots), len(a.Keyslots)) })
	for _, token := range candidates {
		slot := slotOf(token)
		if token.Version != v.Number || len(token.Keyslots) == 0 && !announced(t, token) {
			continue
		}
		err := r.Cryptsetup.TestKey(ctx, t.path, slot, v.Key)
		if err == nil {
			return token, slot, true, nil
		}
		if !errors.Is(err, luks.ErrWrongKey) {
			return luks.OwnToken{}, 0, false, err
		}
	}
	return luks.OwnToken{}, 0, false, nil
}

// openBy has the keyslots be changed by a key that opens one of them.
func (r *Rekeying) openBy(t *target, v SecretVersion, token luks.OwnToken, slot int) {
	t.passphrase.Wipe()
	t.passphrase, t.opens = v.Key.Clone(), &slot
	r.stays.tokens, r.stays.slots = append(r.stays.tokens, token.ID), append(r.stays.slots, slot)
}

// puts says which secret the steps are about.
func (r *Rekeying) puts(t *target, v SecretVersion) error {
	resume, err := r.resumeID(t)
	t.secret = exchange.ReleasedSecret{Volume: r.Volume, UUID: t.uuid(), Version: v.Number, Key: v.Key.Clone(), Resume: resume}
	return err
}

// findBoth opens the keyslot of the old version, or, where it is gone, of the new
// one.
func (r *Rekeying) findBoth(ctx context.Context, t *target) error {
	r.stays = staying{}
	oldToken, oldSlot, oldOpens, err := r.holder(ctx, t, r.Old)
	if err != nil {
		return err
	}
	newToken, newSlot, newOpens, err := r.holder(ctx, t, r.New)
	if err != nil {
		return err
	}
	if newOpens {
		r.openBy(t, r.New, newToken, newSlot)
	} else {
		r.stays.tokens = r.waiting(t)
	}
	if oldOpens {
		r.openBy(t, r.Old, oldToken, oldSlot)
		r.stays.from = &oldSlot
	}
	if !oldOpens && !newOpens {
		return r.noSecret(fmt.Sprintf("neither version %d nor version %d", r.Old.Number, r.New.Number))
	}
	return r.puts(t, r.New)
}

// waiting returns a token of the new version whose keyslot can still be added.
func (r *Rekeying) waiting(t *target) []int {
	for _, token := range r.tokens(t) {
		if token.Version == r.New.Number && len(token.Keyslots) == 0 && !t.hasSlot(token.Slot) {
			return []int{token.ID}
		}
	}
	return nil
}

// findOne opens the keyslot of the version that stays.
func (r *Rekeying) findOne(v SecretVersion, refuse func(*target) error) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		r.stays = staying{}
		if err := refuse(t); err != nil {
			return err
		}
		token, slot, opens, err := r.holder(ctx, t, v)
		if err != nil {
			return err
		}
		if !opens {
			return r.noSecret(fmt.Sprintf("version %d", v.Number))
		}
		r.openBy(t, v, token, slot)
		return r.puts(t, v)
	}
}

// refuseLater refuses to finish what a later rekey has overtaken.
func (r *Rekeying) refuseLater(t *target) error {
	for _, token := range r.tokens(t) {
		if token.Version > r.New.Number {
			return fail(CodeDevice, fmt.Errorf("token %d of %s is of version %d of the secret: a later rekey than to version %d has begun", token.ID, t.path, token.Version, r.New.Number))
		}
	}
	return nil
}

// keepHeader hands out the header unless a token of the new version says that an
// earlier run came further.
func (r *Rekeying) keepHeader(ctx context.Context, t *target) error {
	if slices.ContainsFunc(r.tokens(t), func(token luks.OwnToken) bool { return token.Version == r.New.Number }) {
		return nil
	}
	if err := r.Keep(ctx, t.volume.HeaderCopy()); err != nil {
		return fmt.Errorf("keeping a copy of the header of %s: %w", t.path, err)
	}
	if movedUnder([]*target{t}) {
		return fmt.Errorf("the header of %s changed while it was copied", t.path)
	}
	return nil
}

// clean removes what versions other than the two left, and what the new version
// left that cannot be gone on with.
func (r *Rekeying) clean(ctx context.Context, t *target) error {
	return r.drop(ctx, t, r.passing(t, func(token luks.OwnToken) bool { return token.Version != r.Old.Number }))
}

// cleanVersion removes all tokens of the version that stays but the one that stays.
func (r *Rekeying) cleanVersion(number uint32) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		return r.drop(ctx, t, r.passing(t, func(token luks.OwnToken) bool { return token.Version == number }))
	}
}

// passing returns the tokens that do not stay.
func (r *Rekeying) passing(t *target, among func(luks.OwnToken) bool) []luks.OwnToken {
	return slices.DeleteFunc(r.tokens(t), func(token luks.OwnToken) bool {
		return !among(token) || slices.Contains(r.stays.tokens, token.ID)
	})
}

func everyToken(luks.OwnToken) bool { return true }

func (r *Rekeying) drop(ctx context.Context, t *target, tokens []luks.OwnToken) error {
	if err := r.kill(ctx, t, tokens); err != nil {
		return err
	}
	return r.forget(ctx, t, tokens)
}

func (r *Rekeying) killOthers(ctx context.Context, t *target) error {
	return r.kill(ctx, t, r.passing(t, everyToken))
}

func (r *Rekeying) forgetOthers(ctx context.Context, t *target) error {
	return r.forget(ctx, t, r.passing(t, everyToken))
}

// kill kills the keyslots of tokens that do not stay. All of them are looked at
// before the first is touched.
func (r *Rekeying) kill(ctx context.Context, t *target, tokens []luks.OwnToken) error {
	var doomed []int
	for _, token := range tokens {
		slots, err := r.doomed(t, token)
		if err != nil {
			return err
		}
		doomed = append(doomed, slots...)
	}
	slices.Sort(doomed)
	for _, slot := range slices.Compact(doomed) {
		if err := r.Cryptsetup.KillSlot(ctx, t.path, slot, t.passphrase); err != nil {
			return err
		}
		if err := t.reread(); err != nil {
			return err
		}
	}
	return nil
}

// doomed returns the keyslots that go with a token. One that stays does not, nor
// one that the token announced and that is not as we make them: it is somebody
// else's who took the number.
func (r *Rekeying) doomed(t *target, token luks.OwnToken) ([]int, error) {
	slots := token.Keyslots
	switch {
	case announced(t, token):
		slots = []int{token.Slot}
	case len(slots) == 0 && t.hasSlot(token.Slot):
		r.say("note: keyslot %d of %s stays: token %d announced it, but it is not one that we made", token.Slot, t.path, token.ID)
	}
	slots = slices.DeleteFunc(slices.Clone(slots), func(slot int) bool { return slices.Contains(r.stays.slots, slot) })
	for _, slot := range slots {
		for _, other := range t.volume.Inventory().Tokens {
			if slices.Contains(other.Keyslots, slot) && !isOneOf(other.ID, r.tokens(t)) {
				return nil, fail(CodeDevice, fmt.Errorf("token %d of %s, which is not of our secret for boots, names keyslot %d, as our token %d does: remove the one that is wrong with cryptsetup token remove --token-id NUMBER %s",
					other.ID, t.path, slot, token.ID, t.path))
			}
		}
	}
	return slots, nil
}

func isOneOf(number int, tokens []luks.OwnToken) bool {
	return slices.ContainsFunc(tokens, func(token luks.OwnToken) bool { return token.ID == number })
}

// forget removes tokens whose keyslots are gone.
func (r *Rekeying) forget(ctx context.Context, t *target, tokens []luks.OwnToken) error {
	for _, token := range tokens {
		if err := r.Cryptsetup.RemoveToken(ctx, t.path, token.ID); err != nil {
			return err
		}
	}
	return t.reread()
}
