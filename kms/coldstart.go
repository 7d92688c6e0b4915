package kms

import (
	"context"
	"fmt"

	"keywright.dev/kms/root"
)

// ColdStart is what would open a keyring version after a restart.
type ColdStart struct {
	Keyring string
	Version uint32
	// Opens are the configured roots that open it by themselves, in the order in
	// which they are asked; People those that open it with people.
	Opens, People []string
}

// ColdStart tells what would open each keyring version that is not destroyed. It
// asks no root.
func (s *Service) ColdStart(ctx context.Context) ([]ColdStart, error) {
	versions, err := s.Keys.Store.Keyrings(ctx)
	if err != nil {
		return nil, fmt.Errorf("simulating a cold start: %w", err)
	}
	var list []ColdStart
	for _, v := range living(versions) {
		c := ColdStart{Keyring: v.Keyring, Version: v.Version}
		for _, r := range s.Keys.Roots {
			if _, found := v.wrapperOf(r.URI()); !found {
				continue
			}
			if _, offline := r.(root.Offline); offline {
				c.People = append(c.People, r.URI())
			} else {
				c.Opens = append(c.Opens, r.URI())
			}
		}
		list = append(list, c)
	}
	return list, nil
}
