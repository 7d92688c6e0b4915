package serve

import (
	"net"
	"net/netip"
	"os"

	"keywright.dev/cmd/keywright/config"
)

// namesOf returns what the guest listener's certificate names: what is
// configured, or what the host is reached by.
func namesOf(s config.Server, bound netip.AddrPort) []string {
	if len(s.Names) > 0 {
		return s.Names
	}
	if !bound.Addr().IsUnspecified() {
		return []string{bound.Addr().Unmap().String()}
	}
	var names []string
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	return append(append(names, addresses()...), "localhost", "127.0.0.1")
}

// addresses returns those that another host could use.
func addresses() []string {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var list []string
	for _, a := range found {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().IsGlobalUnicast() {
			list = append(list, prefix.Addr().String())
		}
	}
	return list
}

// guestURL is what guests are told to connect to: an address rather than a
// host name that their network may not resolve.
func guestURL(s config.Server, bound netip.AddrPort) string {
	if s.GuestURL != "" {
		return s.GuestURL
	}
	host := "127.0.0.1"
	switch list := addresses(); {
	case len(s.Names) > 0:
		host = s.Names[0]
	case !bound.Addr().IsUnspecified():
		host = bound.Addr().Unmap().String()
	case len(list) > 0:
		host = list[0]
	}
	return "https://" + net.JoinHostPort(host, portOf(bound))
}
