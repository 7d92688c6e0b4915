package cli

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"net/url"
	"strings"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms/api"
	"keywright.dev/kms/root/quorum"
)

// ownRoots asks the service of a configuration which of its roots are at a host
// that is one of its machines, by name: that host comes up only after the service,
// and the service only after it. A root at any other place breaks the circle, but
// custodians, who start no service.
func (p *Program) ownRoots(ctx context.Context, c config.Config) (machines []string, circle bool, err error) {
	asking := *p
	asking.address = cmp.Or(p.address, c.Server.OperatorSocket, serve.SocketPath(c.Server.Data))
	starting := 0 // roots that open without people
	for _, uri := range c.Server.Roots {
		if strings.HasPrefix(uri, quorum.Scheme+":") {
			continue
		}
		starting++
		name := hostOf(uri)
		if name == "" {
			continue
		}
		m, err := call(ctx, &asking, func(ctx context.Context, o *api.OperatorClient) (api.Machine, error) {
			details, err := o.Machine(ctx, name)
			return details.Machine, err
		})
		var known *api.Error
		switch {
		case errors.As(err, &known) && known.Code == api.CodeNotFound:
		case err != nil:
			return nil, false, err
		case m.Name == name:
			machines = append(machines, "machine/"+name)
		}
	}
	return machines, len(machines) > 0 && len(machines) == starting, nil
}

// hostOf returns the first label of the host that a root's URI names, or its
// endpoint, which is what machines are called; empty for a root at no host or at an
// address.
func hostOf(uri string) string {
	u, err := url.Parse(uri)
	if err == nil && u.Query().Has("endpoint") {
		u, err = url.Parse(u.Query().Get("endpoint"))
	}
	if err != nil {
		return ""
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return ""
	}
	name, _, _ := strings.Cut(u.Hostname(), ".")
	return name
}
