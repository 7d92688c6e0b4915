package kms

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keywright.dev/kms/audit"
)

// ActionDismissOutside is the action of dismissing the ciphertexts outside.
const ActionDismissOutside = "keyring.dismiss_outside"

// KeyringUse tells what a keyring version did for the key API: there are
// ciphertexts of it outside, which no row counts. It cannot be destroyed until a
// person says that nothing needs them any more.
type KeyringUse struct {
	Keyring string
	Version uint32
	// First and Last are when it was used.
	First, Last time.Time
	// Wraps counts the items that it wrapped, Unwraps those that it opened, or should
	// have opened while it waited for its destruction.
	Wraps, Unwraps int64
	// Dismissed is when DismissedBy said that nothing needs its ciphertexts any more;
	// zero where nobody did, or where it was used since.
	Dismissed   time.Time
	DismissedBy string
}

// Uses counts what was recorded: it grows with each use.
func (u *KeyringUse) Uses() int64 { return u.Wraps + u.Unwraps }

func findUse(uses []KeyringUse, version uint32) *KeyringUse {
	i := slices.IndexFunc(uses, func(u KeyringUse) bool { return u.Version == version })
	if i < 0 {
		return nil
	}
	return &uses[i]
}

// Dismissal is a person's word that nothing outside needs a keyring version.
type Dismissal struct {
	Reason string // for the audit log
	// Uses are those that the person saw recorded. Where they are given and there are
	// others by now, nothing is dismissed.
	Uses int64
}

// DismissOutside enters that nothing needs the ciphertexts any more that a version
// wrapped for the key API: they no longer keep it from being destroyed. The next
// use, which proves otherwise, undoes that.
func (s *Service) DismissOutside(ctx context.Context, by Operator, found *KeyringVersion, dismissal Dismissal) (*KeyringUse, error) {
	if err := dismissal.check(); err != nil {
		return nil, err
	}
	object := versionObject(found.Keyring, found.Version)
	var dismissed KeyringUse
	err := s.change(ctx, by, Key{Keyring: found.Keyring}, func(state State) (Outcome, error) {
		v := findVersion(state.Keyring, found.Version)
		if v == nil {
			return Outcome{}, ErrNotFound
		}
		use := findUse(state.Uses, v.Version)
		if err := dismissible(&state, v, use, dismissal.Uses); err != nil {
			return Outcome{}, err
		}
		dismissed = *use
		dismissed.Dismissed, dismissed.DismissedBy = s.Clock(), by.changedBy()
		d := by.draft(ActionDismissOutside, "", object)
		d.fact("reason", "", dismissal.Reason)
		d.fact("status", string(v.Status), string(v.Status))
		d.fact("uses.wraps", "", strconv.FormatInt(use.Wraps, 10))
		d.fact("uses.unwraps", "", strconv.FormatInt(use.Unwraps, 10))
		d.fact("uses.first", "", formatTime(use.First))
		d.fact("uses.last", "", formatTime(use.Last))
		return s.entered(Outcome{Dismissed: []KeyringUse{dismissed}}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", ActionDismissOutside, object, err)
	}
	return &dismissed, nil
}

func (d *Dismissal) check() error {
	switch {
	case strings.TrimSpace(d.Reason) == "":
		return usage("there is no reason: say how it is known that nothing outside needs the version")
	case len(d.Reason) > audit.MaxValue:
		return usage("the reason is longer than %d bytes", audit.MaxValue)
	default:
		return nil
	}
}

// dismissible wants a version that wraps nothing new, and uses that are those which
// the operator saw.
func dismissible(state *State, v *KeyringVersion, use *KeyringUse, seen int64) error {
	name := fmt.Sprintf("%s@%d", v.Keyring, v.Version)
	current := currentOf(state.Keyring)
	switch {
	case use == nil:
		return disallow("it never served the key API: nothing outside is to be dismissed")
	case current != nil && current.Version == v.Version:
		return disallow("it is the current version, which wraps what comes: run `keywright keyring rotate %s`, then `keywright keyring disable %s`, and have what is outside rewrapped", v.Keyring, name)
	case v.Status == KeyringEnabled:
		return disallow("it is enabled: run `keywright keyring disable %s` first", name)
	case v.Status == KeyringDestroyed:
		return disallow("it is destroyed: what it wrapped is lost already")
	case !use.Dismissed.IsZero():
		return disallow("%s dismissed that at %s, and nothing used it since", use.DismissedBy, formatTime(use.Dismissed))
	case seen != 0 && seen != use.Uses():
		return disallow("somebody used it meanwhile, at %s: `keywright audit list` says who, with the actions key.use, key.unwrap and key.rewrap", formatTime(use.Last))
	default:
		return nil
	}
}
