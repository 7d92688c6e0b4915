package rotate

import (
	"context"
	"iter"
	"slices"
	"time"

	"keywright.dev/kms"
)

// maxToPlan is how many volumes are picked from among all. Where there are more, all
// are read in their order, which takes no memory and for so many no longer.
const maxToPlan = 1 << 17

// DueRows are the store as plans of what is due read it.
type DueRows interface {
	Rows
	VolumeKeysOf(ctx context.Context, ids []string) ([]kms.VolumeKeys, error)
	VolumesToPlan(ctx context.Context, which kms.ToPlan, limit int) (ids []string, err error)
}

// VolumesDue yields, of the volumes that [Volumes] yields, those that may make a
// difference to what [Make] plans for a moment, in their order. Where a policy limits the
// age of volume keys it yields all.
func VolumesDue(ctx context.Context, rows DueRows, p *Policy, at time.Time, waits func(machine string) bool, now time.Time, pause kms.Pause) iter.Seq2[Volume, error] {
	which, some := p.toPlan(at)
	if !some {
		return Volumes(ctx, rows, waits, now, pause)
	}
	return func(yield func(Volume, error) bool) {
		ids, err := rows.VolumesToPlan(ctx, which, maxToPlan+1)
		switch {
		case err != nil:
			yield(Volume{}, err)
			return
		case len(ids) > maxToPlan:
			Volumes(ctx, rows, waits, now, pause)(yield)
			return
		}
		slices.Sort(ids)
		for part := range slices.Chunk(slices.Compact(ids), volumesPage) {
			page, err := keysOf(ctx, rows, part, pause)
			if err != nil {
				yield(Volume{}, err)
				return
			}
			if !yieldAll(page, waits, now, yield) {
				return
			}
		}
	}
}

func keysOf(ctx context.Context, rows DueRows, ids []string, pause kms.Pause) ([]kms.VolumeKeys, error) {
	if _, err := pause(ctx); err != nil {
		return nil, err
	}
	return rows.VolumeKeysOf(ctx, ids)
}

// toPlan names the volumes that a plan for a moment is about: of which a secret may be
// due by any rule, or whose rekey counts for the rate of one. It is false where that
// is no question of secrets alone.
func (p *Policy) toPlan(at time.Time) (which kms.ToPlan, some bool) {
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.VolumeKeyAge != Never {
			return kms.ToPlan{}, false
		}
		if r.SecretAge != Never {
			which.Made = latest(which.Made, at.Add(r.Jitter-time.Duration(r.SecretAge)))
		}
		which.Replaced = latest(which.Replaced, at.Add(-r.RetainForRestore))
		if from := at.Add(-r.Rate.Period); i == 0 || from.Before(which.Begun) {
			which.Begun = from
		}
	}
	return which, true
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
