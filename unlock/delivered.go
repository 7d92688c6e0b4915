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
// volume that has a next one, or whose header holds others.
func (b *Boot) deliveredIn(release *exchange.Release) (list []Delivered) {
	for _, v := range b.Volumes {
		s := find(release.Secrets, v.ID)
		if s == nil {
			continue
		}
		if older, later := v.holdsOthers(s.Version); s.NextVersion == 0 && !older && !later {
			continue
		}
		d := Delivered{Volume: v, Secret: *s}
		d.Secret.Key, d.Secret.Recovery, d.Secret.Next = s.Key.Clone(), secret.Bytes{}, s.Next.Clone()
		d.Secret.HeaderKey = s.HeaderKey.Clone()
		list = append(list, d)
	}
	return list
}

// holdsOthers tells whether the header holds older versions, of which a rekey was
// committed, or later ones, of which one may have been withdrawn.
func (v *Volume) holdsOthers(than uint32) (older, later bool) {
	if v.Under != nil {
		return false, false // its rekey is over
	}
	for _, token := range v.LUKS.OwnTokens() {
		if token.Volume == v.ID && token.Purpose == luks.PurposeBoot {
			older, later = older || token.Version < than, later || token.Version > than
		}
	}
	return older, later
}
