package cli

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms/api"
	"keywright.dev/kms/root/quorum"
)

// Resolver looks names and addresses up; [net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupCNAME(ctx context.Context, host string) (string, error)
	LookupAddr(ctx context.Context, address string) ([]string, error)
}

// lookupTimeout bounds what is looked up of one root: without an answer it goes by
// the name alone.
const lookupTimeout = 2 * time.Second

// ownRoots asks the service of a configuration which of its roots are at a host
// that is one of its machines: that host comes up only after the service, and the
// service only after it. A root at any other place breaks the circle, but custodians,
// who start no service.
func (p *Program) ownRoots(ctx context.Context, c config.Config) (machines []string, circle bool, err error) {
	asking := *p
	asking.address = cmp.Or(p.address, c.Server.OperatorSocket, serve.SocketPath(c.Server.Data))
	starting := 0 // roots that open without people
	for _, uri := range c.Server.Roots {
		if strings.HasPrefix(uri, quorum.Scheme+":") {
			continue
		}
		starting++
		name, err := asking.machineAt(ctx, uri)
		if err != nil {
			return nil, false, err
		}
		if name != "" {
			machines = append(machines, "machine/"+name)
		}
	}
	circle = len(machines) > 0 && len(machines) == starting
	slices.Sort(machines)
	return slices.Compact(machines), circle, nil
}

// machineAt returns the machine that is called what the host of a root is; empty
// where none is. The service keeps no addresses of machines.
func (p *Program) machineAt(ctx context.Context, uri string) (string, error) {
	for _, name := range p.namesAt(ctx, uri) {
		m, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Machine, error) {
			details, err := o.Machine(ctx, name)
			return details.Machine, err
		})
		var known *api.Error
		switch {
		case errors.As(err, &known) && (known.Code == api.CodeNotFound || known.Code == api.CodeMalformed):
			// No machine has this name, though ids may begin with it.
		case err != nil:
			return "", err
		case m.Name == name:
			return name, nil
		}
	}
	return "", nil
}

// namesAt returns what a machine may be called that is the host of a root: the names
// that the URI, an alias in DNS, or its addresses in DNS give it, whole and their
// first labels. A root at no host, or at the service's own, has none.
func (p *Program) namesAt(ctx context.Context, uri string) []string {
	u, err := url.Parse(uri)
	if err == nil && u.Query().Has("endpoint") {
		u, err = url.Parse(u.Query().Get("endpoint"))
	}
	if err != nil || u.Hostname() == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	hosts := []string{u.Hostname()}
	addresses, _ := p.Resolver.LookupNetIP(ctx, "ip", u.Hostname())
	if slices.ContainsFunc(addresses, p.isHere) {
		return nil
	}
	if canonical, err := p.Resolver.LookupCNAME(ctx, u.Hostname()); err == nil {
		hosts = append(hosts, canonical)
	}
	for _, a := range addresses {
		back, _ := p.Resolver.LookupAddr(ctx, a.Unmap().String())
		hosts = append(hosts, back...)
	}
	return labelsOf(hosts)
}

// isHere tells an address of the host that the command runs on, which is the
// service's: it asks over a unix socket.
func (p *Program) isHere(a netip.Addr) bool {
	a = a.Unmap()
	own, _ := p.Addresses()
	return a.IsLoopback() || slices.ContainsFunc(own, func(o netip.Addr) bool { return o.Unmap().WithZone("") == a.WithZone("") })
}

// labelsOf returns each name of a host, and its first label, once.
func labelsOf(hosts []string) (names []string) {
	for _, host := range hosts {
		host = strings.TrimSuffix(host, ".")
		if _, err := netip.ParseAddr(host); err == nil {
			continue
		}
		first, _, _ := strings.Cut(host, ".")
		for _, name := range []string{host, first} {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
