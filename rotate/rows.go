package rotate

import (
	"context"
	"iter"
	"time"

	"keywright.dev/kms"
)

const (
	// volumesPage is how many volumes are read at once.
	volumesPage = 512
	// atWork is how long after its delivery an order is taken to be under way, by an
	// agent that asks for no others meanwhile.
	atWork = 15 * time.Minute
)

// Rows are the store as plans read it.
type Rows interface {
	VolumeKeys(ctx context.Context, after string, limit int) ([]kms.VolumeKeys, error)
}

// Volumes yields the volumes of a [State] from the rows: those that are active of
// machines that are, a page in memory at a time. Each page is what there was when it
// was read, so that a change meanwhile is in the plan or in the next one. waits tells
// whether an agent of a machine waits for orders; pause is called before each page.
func Volumes(ctx context.Context, rows Rows, waits func(machine string) bool, now time.Time, pause kms.Pause) iter.Seq2[Volume, error] {
	return func(yield func(Volume, error) bool) {
		for after := ""; ; {
			page, err := nextPage(ctx, rows, after, pause)
			if err != nil {
				yield(Volume{}, err)
				return
			}
			if !yieldAll(page, waits, now, yield) || len(page) < volumesPage {
				return
			}
			after = page[len(page)-1].ID
		}
	}
}

// yieldAll yields what plans are for of a page, and tells whether more is wanted.
func yieldAll(page []kms.VolumeKeys, waits func(machine string) bool, now time.Time, yield func(Volume, error) bool) bool {
	for i := range page {
		v := &page[i]
		if v.Status != kms.VolumeActive || v.MachineStatus != kms.MachineActive {
			continue
		}
		if !yield(volumeOf(v, waits(v.Machine), now), nil) {
			return false
		}
	}
	return true
}

func nextPage(ctx context.Context, rows Rows, after string, pause kms.Pause) ([]kms.VolumeKeys, error) {
	if _, err := pause(ctx); err != nil {
		return nil, err
	}
	return rows.VolumeKeys(ctx, after, volumesPage)
}

// volumeOf says what a plan wants to know.
func volumeOf(k *kms.VolumeKeys, waits bool, now time.Time) Volume {
	v := Volume{
		ID: k.ID, Machine: k.Machine, Name: k.Name, Group: k.Group, Keyring: k.Keyring,
		Created: k.Created, Reencrypted: k.Reencrypted, Bytes: int64(k.Size), Seen: k.Released, RestoreUntil: k.RestoreUntil, Wrapped: ranges(k.Wrapped),
	}
	for i := range k.Secrets {
		v.addSecret(&k.Secrets[i])
	}
	if k.Order != nil && !k.Order.IsWithdrawn() {
		v.Order = v.orderOf(k.Order)
	}
	v.Connected = waits || isAtWork(k.Order, now)
	return v
}

func (v *Volume) addSecret(h *kms.SecretHistory) {
	s := Secret{Version: h.Version, Created: h.Created, AtBoot: h.AtBoot, Wrapped: ranges(h.Wrapped)}
	v.Wrapped = append(v.Wrapped, s.Wrapped...)
	switch {
	case h.Purpose == kms.PurposeRecovery && h.Status == kms.SecretCurrent:
		v.Recovery = s
	case h.Purpose != kms.PurposeKeyslot:
	case h.Status == kms.SecretCurrent:
		v.Secret = s
	case h.Status == kms.SecretRestoreOnly:
		v.RestoreOnly = append(v.RestoreOnly, Retained{s, h.Replaced})
	}
}

// orderOf finds what a rekey needs: before the commit the secret that opens the disk,
// after it the one before, whose keyslot may be there still.
func (v *Volume) orderOf(o *kms.Order) Order {
	kind := RekeyVolume
	if o.Kind == kms.KindReencrypt {
		kind = ReencryptVolume
	}
	order := Order{Kind: kind, Opened: o.Created, AtBoot: o.AtBoot, Attempts: o.Faults, From: v.Secret.Version}
	switch n := len(v.RestoreOnly); {
	case o.From != 0:
		order.From = o.From
	case o.Status == kms.OrderCommitted && n > 0:
		order.From = v.RestoreOnly[n-1].Version
	}
	return order
}

func isAtWork(o *kms.Order, now time.Time) bool {
	if o == nil || o.AtBoot {
		return false
	}
	last := o.Delivered
	if o.Progress.At.After(last) {
		last = o.Progress.At
	}
	return !last.IsZero() && now.Sub(last) < atWork
}

func ranges(list []kms.KeyringRange) (out []Versions) {
	for _, r := range list {
		out = append(out, Versions(r))
	}
	return out
}
