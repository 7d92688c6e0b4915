package rotate

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"keywright.dev/kms"
)

// apply carries out a step, or fails where that would do harm. compromised tells that
// secrets may go before their time.
func (w *world) apply(s *Step, compromised bool) {
	switch s.Kind {
	case RotateKeyring:
		w.rotate(w.keyring(s.Object.Name), w.now)
	case RewrapKeyring:
		w.rewrap(w.keyring(s.Object.Name))
	case DisableKeyringVersion:
		w.disable(s, compromised)
	case DestroyKeyringVersion:
		w.schedule(s)
	case RekeyVolume:
		w.order(s)
		v := w.volume(s.Object.Name)
		v.secrets = append(v.secrets, w.newSecret(v, v.secrets[len(v.secrets)-1].Version+1, w.now))
	case ReencryptVolume:
		w.order(s)
	case DestroySecret:
		w.destroySecret(s, compromised)
	}
}

func (w *world) rewrap(k *kms.Keyring) {
	if k.Current == 0 {
		w.t.Fatalf("keyring/%s has no version to move to", k.Name)
	}
	for _, v := range w.volumes {
		for _, s := range v.all() {
			if s.keyring == k.Name && s.on != k.Current {
				s.on = k.Current
				s.Wrapped, v.wrapped = widen(s.Wrapped, k.Name, s.on), widen(v.wrapped, k.Name, s.on)
			}
		}
	}
}

func (w *world) disable(s *Step, compromised bool) {
	k := w.keyring(s.Object.Name)
	v := versionOf(k, s.Object.Version)
	switch {
	case v.Status != kms.KeyringEnabled || v.Version == k.Current:
		w.t.Fatalf("%s: it is %s, and the current version is %d", s, v.Status, k.Current)
	case !compromised && w.census(k.Name, v.Version) > 0:
		w.t.Fatalf("%s: it was not rewrapped", s)
	}
	v.Status, v.Changed = kms.KeyringDisabled, w.now
}

func (w *world) schedule(s *Step) {
	v := versionOf(w.keyring(s.Object.Name), s.Object.Version)
	if w.outside[s.Object] {
		w.t.Fatalf("%s: ciphertexts depend on it", s)
	}
	if n := w.census(s.Object.Name, s.Object.Version); v.Status != kms.KeyringDisabled || n > 0 {
		w.t.Fatalf("%s: it is %s and %d secrets depend on it", s, v.Status, n)
	}
	v.Status, v.Changed, v.DestroyAt = kms.KeyringScheduled, w.now, w.now.Add(s.Wait)
}

func (w *world) order(s *Step) {
	v := w.volume(s.Object.Name)
	if v.order.Kind != "" {
		w.t.Fatalf("%s: there is an order open for it", s)
	}
	v.order = Order{Kind: s.Kind, Opened: w.now, AtBoot: s.AtBoot, From: v.current().Version}
	v.away = s.Away
}

func (w *world) destroySecret(step *Step, compromised bool) {
	v := w.volume(step.Object.Name)
	s := v.secrets[step.Object.Version-1]
	seen := v.seen()
	kept := w.policy.Rules[w.policy.forVolume(&seen)].RetainForRestore
	switch {
	case s.status != "restore-only":
		w.t.Fatalf("%s: it is %s", step, s.status)
	case v.order.Kind != "" && v.order.From == s.Version:
		w.t.Fatalf("%s: the disk was restored, and has no other key yet", step)
	case !compromised && w.now.Before(s.replaced.Add(kept)):
		w.t.Fatalf("%s: it is kept until %s", step, s.replaced.Add(kept))
	}
	s.status = "destroyed"
}

// pass lets time go by: versions are destroyed, machines come and go, orders are carried
// out or fail.
func (w *world) pass(d time.Duration, calm bool) {
	w.now = w.now.Add(d)
	for _, k := range w.keyrings {
		for i := range k.Versions {
			if v := &k.Versions[i]; v.Status == kms.KeyringScheduled && !w.now.Before(v.DestroyAt) {
				if n := w.census(k.Name, v.Version); n > 0 {
					w.t.Fatalf("keyring/%s@%d is destroyed, and %d secrets depend on it", k.Name, v.Version, n)
				}
				v.Status = kms.KeyringDestroyed
			}
		}
	}
	for _, m := range w.machines {
		switch {
		case calm:
			m.connected = !m.lost
		default:
			m.connected = rapid.Bool().Draw(w.t, "connected")
		}
	}
	for _, v := range w.volumes {
		if v.order.Kind != "" && v.machine.connected {
			w.tryOrder(v, calm)
		}
		if !calm && v.order.Kind == "" && rapid.IntRange(0, 9).Draw(w.t, "restored") == 0 {
			w.restore(v)
		}
	}
}

// restore puts back an image of the disk from before: it is opened with the secret from
// then, and rekeyed at once.
func (w *world) restore(v *modelVolume) {
	kept := slices.IndexFunc(v.secrets, func(s *modelSecret) bool { return s.status == "restore-only" })
	if kept < 0 {
		return
	}
	v.order = Order{Kind: RekeyVolume, Opened: w.now, From: v.secrets[kept].Version}
	v.secrets = append(v.secrets, w.newSecret(v, v.secrets[len(v.secrets)-1].Version+1, w.now))
}

// tryOrder has a machine carry out its order, while it runs or in a boot.
func (w *world) tryOrder(v *modelVolume, calm bool) {
	boot := v.order.AtBoot || rapid.Bool().Draw(w.t, "boot")
	if !calm && rapid.Bool().Draw(w.t, "fails") {
		v.order.Attempts++
		return
	}
	if v.order.Kind == ReencryptVolume {
		v.reencrypted = w.now
	} else {
		w.commit(v, boot)
	}
	v.order = Order{}
}

func (w *world) commit(v *modelVolume, boot bool) {
	next := v.secrets[len(v.secrets)-1]
	old := v.current()
	old.status, old.replaced = "restore-only", w.now
	next.status, next.AtBoot = "current", boot
}
