package api

import (
	"context"
	"time"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// MaxHeaderCopyRequest bounds the body that brings the copy of a header, in bytes:
// base64 of [exchange.MaxHeaderCopy].
const MaxHeaderCopyRequest = exchange.MaxHeaderCopy/3*4 + 4<<10

// HeaderCopyRequest brings the copy of a volume's header from before a rekey. That it
// opens with the key that the rekey's release had is what proves it.
type HeaderCopyRequest struct {
	Machine string `json:"machine"` // id
	Volume  string `json:"volume"`  // id
	Version uint32 `json:"version"` // of the secret that the rekey makes
	Copy    []byte `json:"copy"`    // exchange.SealHeaderCopy
}

// HeaderCopyResponse says that it is kept.
type HeaderCopyResponse struct{}

// KeepHeader brings the copy of a header, before it is changed.
func (g *GuestClient) KeepHeader(ctx context.Context, r HeaderCopyRequest) (HeaderCopyResponse, error) {
	return post[HeaderCopyResponse](ctx, g.c, PathRekeyHeader, r)
}

// DiscloseHeaderCopy is the body that asks for the copy of a header, as
// [DiscloseRecoveryKey] asks for a recovery key.
type DiscloseHeaderCopy struct {
	Recipient []byte `json:"recipient" doc:"Public key (exchange.Recipient) that the answer's key is sealed to."`
}

// HeaderCopy is the copy of a volume's header as the machine sealed it, and the key
// that opens it.
type HeaderCopy struct {
	Volume  string    `json:"volume"` // id
	UUID    string    `json:"uuid"`   // of the LUKS header
	Version uint32    `json:"version"`
	Created time.Time `json:"created"`
	Copy    []byte    `json:"copy"`
	Key     Sealed    `json:"key"`
}

// HeaderCopy has the copy of a volume's header disclosed. It is compressed with gzip,
// and opens with what the keyslots of that time open with: the caller wipes it.
func (o *OperatorClient) HeaderCopy(ctx context.Context, ref string) (HeaderCopy, secret.Bytes, error) {
	d, err := newDisclosure(ref, 0)
	if err != nil {
		return HeaderCopy{}, secret.Bytes{}, err
	}
	answer, err := post[HeaderCopy](ctx, o.c, at(PathVolumeHeaderCopy, ref), DiscloseHeaderCopy{Recipient: d.own.PublicKey()})
	if err != nil {
		return HeaderCopy{}, secret.Bytes{}, err
	}
	key, err := d.open(answer.Key)
	if err != nil {
		return HeaderCopy{}, secret.Bytes{}, err
	}
	defer key.Wipe()
	header, err := exchange.OpenHeaderCopy(key, answer.Volume, answer.Version, answer.Copy)
	return answer, secret.New(header), err
}
