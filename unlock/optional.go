package unlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/unlock/luks"
)

// optionalPatience is how long a boot waits for a volume that it can do without,
// once it has those that it cannot.
const optionalPatience = 10 * time.Second

// search looks for the volumes of a configuration in their order; nil stands for
// one that the boot does without.
func (s Search) search(ctx context.Context, configs []VolumeConfig) ([]*Volume, error) {
	found := make([]*Volume, len(configs))
	for i, c := range configs {
		if c.optional() {
			continue
		}
		v, err := s.await(ctx, c)
		if err != nil {
			return found, err
		}
		found[i] = &v
	}
	patience := s
	if limit := s.Clock.Now().Add(optionalPatience); s.Deadline.IsZero() || limit.Before(s.Deadline) {
		patience.Deadline = limit
	}
	for i, c := range configs {
		if !c.optional() {
			continue
		}
		v, err := patience.await(ctx, c)
		if err == nil && v.ID == "" {
			err = errors.Join(errors.New("it is not enrolled"), v.Device.Close())
		}
		if err != nil {
			s.Announce(goingWithout(c, err))
			continue
		}
		found[i] = &v
	}
	return found, nil
}

// goingWithout is what consoles show of a volume that a boot does without.
func goingWithout(c VolumeConfig, err error) string {
	return printable(fmt.Sprintf("keywright: going on without %s (%s): %v", c.Device, c.Name, err))
}

// Required returns the volumes that a boot cannot do without.
func (vs Volumes) Required() Volumes {
	return slices.DeleteFunc(slices.Clone(vs), func(v Volume) bool { return v.Config.optional() })
}

// leaveOut has the boot go on without a volume, if it can.
func (b *Boot) leaveOut(v Volume, err error) bool {
	if !v.Config.optional() || len(b.Volumes) == 1 {
		return false
	}
	b.Announce(goingWithout(v.Config, err))
	b.Volumes = slices.DeleteFunc(slices.Clone(b.Volumes), func(other Volume) bool { return other.ID == v.ID })
	return true
}

// forgo asks without the optional volumes where the service refuses one of the
// volumes, for it does not say which, and with all again where that was no better.
// It tells whether to ask at once, which it does once.
func (b *Boot) forgo(f *Failure) bool {
	if b.forgone != nil {
		b.Volumes, b.forgone = b.forgone, nil
		return false
	}
	required := Volumes(b.Volumes).Required()
	if f.Code != api.CodeVolume || len(required) == 0 || len(required) == len(b.Volumes) {
		return false
	}
	b.forgone, b.Volumes = b.Volumes, required
	first := !b.forwent
	b.forwent = true
	if first {
		b.Announce("keywright: the service refuses a volume: going on without those that may fail")
	}
	return first
}

// leaveUnmade has the boot go on without a volume whose mapping could not be made,
// if nothing is left of that.
func (b *Boot) leaveUnmade(ctx context.Context, v Volume, err error) bool {
	if !v.Config.optional() {
		return false
	}
	if errors.Is(err, luks.ErrLeftOpen) {
		if closing := b.Opener.Close(ctx, v.Config.Name); closing != nil && !errors.Is(closing, luks.ErrNoMapping) {
			return false
		}
	}
	return b.leaveOut(v, err)
}
