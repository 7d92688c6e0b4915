package kms

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// InUseError is an operator's request to destroy what something depends on.
type InUseError struct {
	Keyring string
	Version uint32
	Count   int64 // of rows
	// Outside tells that ciphertexts outside may depend on it.
	Outside bool
}

// Error says what to do.
func (e *InUseError) Error() string {
	var parts []string
	if e.Count > 0 {
		parts = append(parts, fmt.Sprintf("%d secrets and keys still depend on it: run `keywright keyring rewrap %s`; `keywright keyring census %s@%d` names what is left",
			e.Count, e.Keyring, e.Keyring, e.Version))
	}
	if e.Outside {
		parts = append(parts, fmt.Sprintf("ciphertexts outside may depend on it: once each is rewrapped, or given up, say so with `keywright keyring dismiss-outside %s@%d --reason …`",
			e.Keyring, e.Version))
	}
	return strings.Join(parts, "; ")
}

// unused is an [InUseError] where something depends on a version.
func unused(v *KeyringVersion, dependents []Dependents) error {
	e := &InUseError{Keyring: v.Keyring, Version: v.Version}
	for _, d := range dependents {
		switch {
		case d.Version != v.Version:
		case d.Kind == DependentOutside:
			e.Outside = true
		default:
			e.Count += d.Count
		}
	}
	if e.Count == 0 && !e.Outside {
		return nil
	}
	return e
}

// Dependent is one row that depends on a keyring version.
type Dependent struct {
	Kind DependentKind
	// Object is volume/ID, service-key/KIND/ID or ciphertexts/outside.
	Object  string
	Machine string // id; of a secret
	Purpose string // of a secret; of a service key its kind
	Version uint32 // of a secret
	Status  string // of a secret
	// Use is what is known of ciphertexts outside, else nil.
	Use *KeyringUse
}

// DependentsOn returns a page of what depends on a keyring version: service keys
// first, then secrets by volume, purpose and version. after is the value of next
// in the page before; an empty next ends the list.
func (s *Service) DependentsOn(ctx context.Context, v *KeyringVersion, after string, limit int) (page []Dependent, next string, err error) {
	from, err := parsePosition(after)
	if err != nil {
		return nil, "", err
	}
	if after != "" && from.version != v.Version {
		return nil, "", usage("the place to go on from is not one of this list")
	}
	if after == "" && v.Keyring == SystemKeyring {
		if page, err = s.dependentServiceKeys(ctx, v.Version); err != nil {
			return nil, "", err
		}
	}
	if after == "" {
		outside, err := s.dependentOutside(ctx, v)
		if err != nil {
			return nil, "", err
		}
		page = append(page, outside...)
	}
	rows, err := s.Store.SecretsOn(ctx, v.Keyring, v.Version, from.secret, limit)
	if err != nil {
		return nil, "", err
	}
	for i := range rows {
		page = append(page, dependentOf(&rows[i]))
	}
	if len(rows) > 0 && len(rows) >= limit {
		next = position{v.Version, rows[len(rows)-1].Ref()}.String()
	}
	return page, next, nil
}

func dependentOf(b *BoundSecret) Dependent {
	return Dependent{
		Kind: DependentSecret, Object: volumeObject(b.Volume), Machine: b.Machine,
		Purpose: b.Purpose, Version: b.Version, Status: string(b.Status),
	}
}

func (s *Service) dependentServiceKeys(ctx context.Context, version uint32) ([]Dependent, error) {
	keys, err := s.Keys.Store.ServiceKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the service's keys: %w", err)
	}
	var found []Dependent
	for _, k := range keys {
		if k.KeyringVersion == version {
			found = append(found, Dependent{Kind: DependentServiceKey, Object: serviceKeyObject(&k), Purpose: string(k.Kind)})
		}
	}
	return found, nil
}

// dependentOutside tells whether the key API used a version, and nobody dismissed
// that since: who has these ciphertexts, nobody here knows.
func (s *Service) dependentOutside(ctx context.Context, v *KeyringVersion) ([]Dependent, error) {
	uses, err := s.Store.KeyringUses(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range uses {
		if u.Keyring == v.Keyring && u.Version == v.Version && u.Dismissed.IsZero() {
			return []Dependent{{Kind: DependentOutside, Object: "ciphertexts/outside", Purpose: PurposeApplication, Use: &u}}, nil
		}
	}
	return nil, nil
}

func serviceKeyObject(k *ServiceKey) string { return "service-key/" + string(k.Kind) + "/" + k.ID }

// position is how far a list of secrets by keyring version was read.
type position struct {
	version uint32
	secret  SecretRef
}

// String returns "3/VOLUME/PURPOSE/1": keyring version, and the secret.
func (p position) String() string {
	return fmt.Sprintf("%d/%s/%s/%d", p.version, p.secret.Volume, p.secret.Purpose, p.secret.Version)
}

// parsePosition reads what String writes, and nothing else; an empty text is the
// beginning.
func parsePosition(text string) (position, error) {
	if text == "" {
		return position{}, nil
	}
	wrong := usage("the place to go on from is not one that this list gave")
	parts := strings.Split(text, "/")
	if len(parts) != 4 {
		return position{}, wrong
	}
	keyring, err1 := strconv.ParseUint(parts[0], 10, 31)
	secret, err2 := strconv.ParseUint(parts[3], 10, 31)
	p := position{uint32(keyring), SecretRef{parts[1], parts[2], uint32(secret)}}
	if err1 != nil || err2 != nil || p.String() != text {
		return position{}, wrong
	}
	return p, nil
}
