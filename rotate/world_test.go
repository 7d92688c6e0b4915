package rotate

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"keywright.dev/kms"
)

// world is a service and its machines, small enough to be followed: steps are applied
// to it, and what must never be done fails the test.
type world struct {
	t        *rapid.T
	now      time.Time
	policy   *Policy
	keyrings []*kms.Keyring
	machines []*machine
	volumes  []*modelVolume
	excuses  []Excuse
	// outside are the versions that wrapped for the key API.
	outside map[Object]bool
	// avoid is a version that wraps nothing new once its incident was planned for.
	avoid Reference
}

type machine struct {
	id, name, group string
	connected, lost bool
}

type modelVolume struct {
	id, keyring          string
	machine              *machine
	created, reencrypted time.Time
	secrets              []*modelSecret // the keyslot's, by version
	recovery             *modelSecret   // nil where there is none
	wrapped              []Versions
	order                Order
	away                 bool // the order was given while the machine was
}

type modelSecret struct {
	Secret
	status   string // pending, current, restore-only or destroyed
	keyring  string
	on       uint32
	replaced time.Time
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), policy: drawPolicy(t), outside: map[Object]bool{}}
	for _, name := range []string{"prod", "dev"} {
		k := &kms.Keyring{Name: name}
		for range rapid.IntRange(1, 3).Draw(t, "versions") {
			w.rotate(k, w.ago(500))
		}
		for i := range k.Versions {
			v := &k.Versions[i]
			if v.Version != k.Current && rapid.IntRange(0, 3).Draw(t, "disabled") == 0 {
				v.Status = kms.KeyringDisabled // by an operator, whatever depends on it
			}
			w.outside[keyringObject(name, v.Version)] = rapid.IntRange(0, 5).Draw(t, "outside") == 0
		}
		w.keyrings = append(w.keyrings, k)
	}
	for i := range rapid.IntRange(1, 6).Draw(t, "machines") {
		id := fmt.Sprintf("%064x", i)
		w.machines = append(w.machines, &machine{
			id: id, name: fmt.Sprintf("web-%d", i), group: rapid.SampledFrom([]string{"web", "db"}).Draw(t, "group"),
			connected: rapid.Bool().Draw(t, "connected"), lost: rapid.IntRange(0, 9).Draw(t, "lost") == 0,
		})
	}
	for i := range rapid.IntRange(1, 10).Draw(t, "volumes") {
		w.enrol(i)
	}
	return w
}

func drawPolicy(t *rapid.T) *Policy {
	s := func(name string) Settings {
		s := Shipped()
		s.Priority = rapid.IntRange(0, 100).Draw(t, "priority")
		s.SecretAge = rapid.SampledFrom([]Age{Never, Age(90 * day), Age(365 * day)}).Draw(t, name+" secret age")
		s.KeyringAge = rapid.SampledFrom([]Age{Never, Age(100 * day), Age(365 * day)}).Draw(t, name+" keyring age")
		s.VolumeKeyAge = rapid.SampledFrom([]Age{Never, Age(200 * day)}).Draw(t, name+" volume key age")
		s.Jitter = rapid.SampledFrom([]time.Duration{0, day, 30 * day}).Draw(t, name+" jitter")
		s.Concurrency = rapid.IntRange(1, 4).Draw(t, name+" concurrency")
		s.Rate = Rate{rapid.IntRange(1, 4).Draw(t, name+" rate"), time.Hour}
		s.RetainForRestore = rapid.SampledFrom([]time.Duration{day, 400 * day}).Draw(t, name+" retain")
		s.DestroyWait = 7 * day
		if rapid.Bool().Draw(t, name+" window") {
			w, err := newWindow("0 22 * * *", "Europe/Berlin", "6h")
			if err != nil {
				t.Fatal(err)
			}
			s.Windows = []Window{w}
		}
		return s
	}
	return &Policy{[]Rule{
		{Name: "prod", Keyrings: []string{"prod"}, Settings: s("prod")},
		{Name: "db", Groups: []string{"db"}, Settings: s("db")},
		{Name: DefaultRule, Settings: s("default")},
	}}
}

func (w *world) ago(days int) time.Time {
	return w.now.Add(-time.Duration(rapid.IntRange(1, days*24).Draw(w.t, "hours ago")) * time.Hour)
}

func (w *world) enrol(i int) {
	v := &modelVolume{
		id: fmt.Sprintf("%032x", i), keyring: rapid.SampledFrom([]string{"prod", "dev"}).Draw(w.t, "keyring"),
		machine: rapid.SampledFrom(w.machines).Draw(w.t, "machine"), created: w.ago(500),
	}
	for n := range rapid.IntRange(1, 3).Draw(w.t, "secrets") {
		s := w.newSecret(v, uint32(n+1), w.ago(400))
		if n > 0 {
			v.secrets[n-1].status, v.secrets[n-1].replaced = "restore-only", s.Created
		}
		s.status = "current"
		v.secrets = append(v.secrets, s)
	}
	if rapid.Bool().Draw(w.t, "recovery") {
		v.recovery = w.newSecret(v, 1, v.created)
		v.recovery.status = "current"
	}
	w.volumes = append(w.volumes, v)
}

// newSecret is wrapped with the current version, which is never one to be avoided.
func (w *world) newSecret(v *modelVolume, version uint32, created time.Time) *modelSecret {
	k := w.keyring(v.keyring)
	if w.avoid.Kind == KeyringOut && k.Name == w.avoid.Name && k.Current == w.avoid.Version {
		w.t.Fatalf("a new secret of volume/%s is wrapped by %s", v.id, w.avoid)
	}
	on := k.Current
	if len(v.secrets) == 0 && w.avoid.Name == "" {
		on = rapid.SampledFrom(k.Versions).Draw(w.t, "on").Version
	}
	s := &modelSecret{Secret: Secret{Version: version, Created: created}, status: "pending", keyring: k.Name, on: on}
	s.Wrapped = []Versions{{k.Name, on, on}}
	v.wrapped = widen(v.wrapped, k.Name, on)
	return s
}

func widen(list []Versions, keyring string, version uint32) []Versions {
	list = slices.Clone(list)
	for i := range list {
		if list[i].Keyring == keyring {
			list[i].First, list[i].Last = min(list[i].First, version), max(list[i].Last, version)
			return list
		}
	}
	return append(list, Versions{keyring, version, version})
}

func (w *world) keyring(name string) *kms.Keyring {
	return w.keyrings[slices.IndexFunc(w.keyrings, func(k *kms.Keyring) bool { return k.Name == name })]
}

func (w *world) volume(id string) *modelVolume {
	return w.volumes[slices.IndexFunc(w.volumes, func(v *modelVolume) bool { return v.id == id })]
}

func (w *world) rotate(k *kms.Keyring, made time.Time) {
	next := uint32(len(k.Versions) + 1)
	k.Versions = append(k.Versions, kms.KeyringVersion{Keyring: k.Name, Version: next, Status: kms.KeyringEnabled, Created: made, Changed: made})
	k.Current = next
}

func (v *modelVolume) current() *modelSecret {
	return v.secrets[slices.IndexFunc(v.secrets, func(s *modelSecret) bool { return s.status == "current" })]
}

// all are the secrets of a volume that are not destroyed.
func (v *modelVolume) all() []*modelSecret {
	list := slices.Clone(v.secrets)
	if v.recovery != nil {
		list = append(list, v.recovery)
	}
	return slices.DeleteFunc(list, func(s *modelSecret) bool { return s.status == "destroyed" })
}

func (w *world) census(keyring string, version uint32) (count int64) {
	for _, v := range w.volumes {
		for _, s := range v.all() {
			if s.keyring == keyring && s.on == version {
				count++
			}
		}
	}
	return count
}

func (w *world) state() State {
	s := State{Excuses: w.excuses, Speed: Speed{Roots: 2, Rewraps: 100, Rekey: time.Minute, Reencrypt: 1 << 27}}
	for _, k := range w.keyrings {
		seen := *k
		seen.Versions = slices.Clone(k.Versions)
		for _, v := range k.Versions {
			if n := w.census(k.Name, v.Version); n > 0 {
				seen.Dependents = append(seen.Dependents, kms.Dependents{Keyring: k.Name, Version: v.Version, Kind: kms.DependentSecret, Count: n})
			}
			if w.outside[keyringObject(k.Name, v.Version)] {
				seen.Dependents = append(seen.Dependents, kms.Dependents{Keyring: k.Name, Version: v.Version, Kind: kms.DependentOutside, Count: 1})
			}
		}
		s.Keyrings = append(s.Keyrings, seen)
	}
	list := make([]Volume, 0, len(w.volumes))
	for _, v := range w.volumes {
		list = append(list, v.seen())
	}
	s.Volumes = only(list...)
	return s
}

func (v *modelVolume) seen() Volume {
	seen := Volume{
		ID: v.id, Machine: v.machine.id, Name: v.machine.name, Group: v.machine.group, Keyring: v.keyring, Bytes: 1 << 30,
		Created: v.created, Reencrypted: v.reencrypted, Wrapped: v.wrapped, Order: v.order, Connected: v.machine.connected,
	}
	for _, s := range v.secrets {
		switch s.status {
		case "current":
			seen.Secret = s.Secret
		case "restore-only":
			seen.RestoreOnly = append(seen.RestoreOnly, Retained{s.Secret, s.replaced})
		}
	}
	if v.recovery != nil {
		seen.Recovery = v.recovery.Secret
	}
	return seen
}
