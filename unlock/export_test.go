package unlock

import (
	"context"

	"keywright.dev/kms/exchange"
)

// AfterRecovery is what a boot demands of a header that cryptsetup has recovered.
func AfterRecovery(v Volume) error {
	_, err := v.afterRecovery()
	return err
}

// Lost returns the keyslots that a reencryption would lose.
func (r *Reencrypting) Lost(ctx context.Context) ([]exchange.LUKSSlot, error) {
	e := &Enrollment{Devices: []Device{{Path: r.Device}}}
	defer e.wipe()
	if err := r.read(e)(ctx); err != nil || r.under || r.ended {
		return nil, err
	}
	return r.lost(e.targets[0])
}
