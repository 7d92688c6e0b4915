package unlock

import (
	"context"
	"errors"
	"fmt"
	"os"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// boundUnder is [bound] of a header under reencryption. Whether that was ordered the
// service says.
func boundUnder(device *os.File, header *luks.Header) (Volume, error) {
	under, err := header.ValidateUnder()
	if err != nil {
		return Volume{}, fmt.Errorf("reading the header of %s, which is under reencryption: %w", device.Name(), err)
	}
	v := Volume{Under: under, Device: device}
	from, err := under.From().Digest()
	if err != nil {
		return Volume{}, err
	}
	becomes, err := under.To().Digest()
	if err != nil {
		return Volume{}, err
	}
	v.Identity = exchange.UnderReencryption(from, becomes)
	if err := v.bind(under.OwnTokens()); err != nil {
		return Volume{}, err
	}
	if under.All() {
		if v.LUKS, err = under.Ended(); err != nil {
			return Volume{}, err
		}
		v.Slots = v.LUKS.OwnSlots(v.ID)
		return v, nil
	}
	for _, token := range under.OwnTokens() {
		if token.Volume == v.ID && token.Purpose == luks.PurposeBoot {
			v.Slots = append(v.Slots, token.Keyslots...)
		}
	}
	return v, nil
}

// header is what the volume was read from.
func (v *Volume) header() *luks.Header {
	if v.Under != nil {
		return v.Under.Header()
	}
	return v.LUKS.Header()
}

// named is the volume as statements have it.
func (v *Volume) named() exchange.Volume {
	return exchange.Volume{ID: v.ID, UUID: v.header().UUID, Identity: v.Identity}
}

// becomes is as in [exchange.VolumeReport].
func (v *Volume) becomes() ([]byte, error) {
	if v.Under == nil {
		return nil, nil
	}
	becomes, err := v.Under.To().Digest()
	return becomes[:], err
}

// report returns what the header holds beside its identity.
func (v *Volume) report() (exchange.VolumeReport, error) {
	if v.Under == nil {
		return report(v.ID, v.LUKS)
	}
	becomes, err := v.becomes()
	return exchange.VolumeReport{
		ID: v.ID, VolumeKeyDigest: []byte{}, Sequence: v.header().SequenceID,
		Slots: []exchange.LUKSSlot{}, Tokens: []exchange.LUKSToken{}, Becomes: becomes,
	}, err
}

// fresh reads the header anew.
func (v *Volume) fresh() (Volume, error) {
	again, err := readVolume(v.Device)
	if err == nil && (again.ID != v.ID || again.header().UUID != v.header().UUID) {
		err = fail(CodeDevice, fmt.Errorf("%s is not volume/%s any more", v.Device.Name(), v.ID))
	}
	again.Config = v.Config
	return again, err
}

// unsealUnder makes sure that cryptsetup opens a volume under reencryption with a key,
// which is returned.
func unsealUnder(ctx context.Context, v Volume, key secret.Bytes) (secret.Bytes, error) {
	if err := (luks.Cryptsetup{}).TestAnyKey(ctx, v.Device.Name(), key); err != nil {
		return secret.Bytes{}, err
	}
	return key.Clone(), nil
}

// openUnder hands a volume under reencryption to the cryptsetup program, which recovers
// it where it was cut, and looks at the header and the mapping after that.
func openUnder(ctx context.Context, v Volume, key secret.Bytes, options luks.Options) (*luks.Mapping, error) {
	name := v.Config.Name
	if err := v.Under.Ready(ctx, name); err != nil {
		return nil, err
	}
	if err := (luks.Cryptsetup{}).Open(ctx, v.Device.Name(), name, options, key); err != nil {
		return nil, errors.Join(err, luks.Discard(ctx, name))
	}
	path := "/dev/mapper/" + name
	table, err := luks.ReadTableOf(path)
	if err == nil {
		err = v.recovered(table)
	}
	if err != nil {
		return nil, errors.Join(err, luks.Discard(ctx, name))
	}
	return &luks.Mapping{Path: path, Table: table}, nil
}

// recovered demands that the mapping is what the header says after [Volume.afterRecovery].
func (v *Volume) recovered(table luks.Table) error {
	header, err := v.afterRecovery()
	if err != nil {
		return err
	}
	return header.Check(table)
}

// mapped is a header that says what its mapping is.
type mapped interface {
	Check(table luks.Table) error
}

// afterRecovery reads the header that cryptsetup has recovered, and demands that it is
// that of the same reencryption still, or what that was to make of it: where the last
// part of the data is recovered, it has ended.
func (v *Volume) afterRecovery() (mapped, error) {
	again, err := v.fresh()
	if err != nil {
		return nil, err
	}
	becomes, err := v.Under.To().Digest()
	switch {
	case err != nil:
		return nil, err
	case again.Under != nil && again.Identity == v.Identity:
		return again.Under, nil
	case again.Under == nil && again.Identity == becomes:
		return again.LUKS, nil
	default:
		return nil, fmt.Errorf("the header of %s is another since cryptsetup opened it", v.Device.Name())
	}
}
