package unlock

import (
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// Delivered are the secrets of a rekey that came with the release of a boot.
type Delivered struct {
	Volume Volume
	Secret exchange.ReleasedSecret
}

// Wipe wipes the secrets.
func (d *Delivered) Wipe() {
	d.Secret.Key.Wipe()
	d.Secret.Next.Wipe()
	d.Secret.HeaderKey.Wipe()
}

// Delivered returns the secrets of rekeys that came with the release, once every
// volume is open. The caller wipes them.
func (b *Boot) Delivered() []Delivered { return b.rekeys }

// deliveredIn copies from a release what a rekey goes on with: the secrets of a
// volume that has a next one, or whose header still holds an older one.
func (b *Boot) deliveredIn(release *exchange.Release) (list []Delivered) {
	for _, v := range b.Volumes {
		s := find(release.Secrets, v.ID)
		if s == nil || s.NextVersion == 0 && !v.holdsOlder(s.Version) {
			continue
		}
		d := Delivered{Volume: v, Secret: *s}
		d.Secret.Key, d.Secret.Recovery, d.Secret.Next = s.Key.Clone(), secret.Bytes{}, s.Next.Clone()
		d.Secret.HeaderKey = s.HeaderKey.Clone()
		list = append(list, d)
	}
	return list
}

// holdsOlder tells whether a rekey to a version that was committed is to be
// finished.
func (v *Volume) holdsOlder(than uint32) bool {
	if v.Under != nil {
		return false // its rekey is over
	}
	for _, token := range v.LUKS.OwnTokens() {
		if token.Volume == v.ID && token.Purpose == luks.PurposeBoot && token.Version < than {
			return true
		}
	}
	return false
}
