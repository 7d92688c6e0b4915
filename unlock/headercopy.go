package unlock

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// StepSendHeader has the service keep the copy of the header.
const StepSendHeader Step = "send-header"

// keep has the service keep the copy of a header, sealed under the key that the
// rekey's secrets came with, until the rekey is over: on a disk of this machine it
// would outlive the keyslot that is killed, and in its memory it would not outlive a
// cut.
func (o *rekeyOrder) keep(key secret.Bytes, version uint32) func(context.Context, io.Reader) error {
	return func(ctx context.Context, header io.Reader) error {
		packed, err := compressed(header)
		if err != nil {
			return err
		}
		defer clear(packed)
		sealed, err := exchange.SealHeaderCopy(key, o.volume.ID, version, packed)
		if err != nil {
			return err
		}
		o.say("step: %s %s", StepSendHeader, o.disk.Device)
		copied := api.HeaderCopyRequest{Machine: o.TPM.EK().MachineID(), Volume: o.volume.ID, Version: version, Copy: sealed}
		return o.patiently(ctx, func(ctx context.Context) error {
			return o.send(ctx, copied)
		})
	}
}

// send brings a copy to the first server that answers.
func (r *Rekeyer) send(ctx context.Context, copied api.HeaderCopyRequest) error {
	return r.turning(ctx, func(ctx context.Context, to RekeyServer, _ [32]byte) error {
		_, err := call(ctx, to.Host, func(ctx context.Context) (api.HeaderCopyResponse, error) { return to.KeepHeader(ctx, copied) })
		return err
	})
}

// compressed reads a header, of which most is zeros. The caller clears it.
func compressed(header io.Reader) ([]byte, error) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := io.Copy(w, header); err != nil {
		return nil, fmt.Errorf("reading it: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compressing it: %w", err)
	}
	return packed.Bytes(), nil
}
