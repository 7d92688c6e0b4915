package cli

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

// zone is what DNS says: addresses and aliases by name, names by address.
type zone struct {
	addresses map[string][]string
	aliases   map[string]string
	names     map[string][]string
}

var errNoSuchHost = errors.New("no such host")

func (z zone) LookupNetIP(_ context.Context, _, host string) (found []netip.Addr, err error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	for _, a := range z.addresses[host] {
		found = append(found, netip.MustParseAddr(a))
	}
	if found == nil {
		err = errNoSuchHost
	}
	return found, err
}

func (z zone) LookupCNAME(_ context.Context, host string) (string, error) {
	if name, ok := z.aliases[host]; ok {
		return name, nil
	}
	return "", errNoSuchHost
}

func (z zone) LookupAddr(_ context.Context, address string) ([]string, error) {
	if names, ok := z.names[address]; ok {
		return names, nil
	}
	return nil, errNoSuchHost
}

// A machine may be the host of a root under any name that DNS gives it.
func TestNamesAtARoot(t *testing.T) {
	p := &Program{
		Resolver: zone{
			addresses: map[string][]string{
				"vault.example": {"192.0.2.7", "2001:db8::7"}, "here.example": {"192.0.2.1"}, "localhost": {"::1"}, "six.example": {"fe80::1"},
			},
			aliases: map[string]string{"vault.example": "web-17.prod.example."},
			names:   map[string][]string{"192.0.2.7": {"db-3.prod.example."}, "2001:db8::7": {"web-17.prod.example."}},
		},
		Addresses: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")}, nil
		},
	}
	for uri, want := range map[string][]string{
		"vault://vault.example:8200/transit/key": {"vault.example", "vault", "web-17.prod.example", "web-17", "db-3.prod.example", "db-3"},
		"vault://192.0.2.7:8200/transit/key":     {"db-3.prod.example", "db-3"},
		"vault://[::ffff:192.0.2.7]/transit/key": {"db-3.prod.example", "db-3"},
		"vault://unknown.example/transit/key":    {"unknown.example", "unknown"},
		"vault://198.51.100.1/transit/key":       nil,
		"vault://localhost:8200/transit/key":     nil,
		"vault://127.0.0.2:8200/transit/key":     nil,
		"vault://here.example/transit/key":       nil,
		"vault://six.example/transit/key":        nil,
		"file:///etc/keywright/root.key":         nil,
		"pkcs11:token=t;object=o":                nil,
		"://":                                    nil,
	} {
		assert.Equal(t, want, p.namesAt(t.Context(), uri), uri)
	}
}
