package pki

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Names is what a server certificate is valid for: at least one DNS name or
// address.
type Names struct {
	DNS []string
	IPs []netip.Addr
}

// ParseNames sorts hosts, as a configuration lists them, into DNS names and
// addresses.
func ParseNames(hosts []string) (Names, error) {
	var names Names
	for _, host := range hosts {
		if ip, err := netip.ParseAddr(host); err == nil {
			names.IPs = append(names.IPs, ip)
		} else {
			names.DNS = append(names.DNS, host)
		}
	}
	return names, names.check()
}

func (n Names) check() error {
	if len(n.DNS)+len(n.IPs) == 0 {
		return errors.New("no name: want at least one DNS name or IP address of the server")
	}
	for _, name := range n.DNS {
		if !isHostname(name) {
			return fmt.Errorf("%.253q is neither a DNS name nor an IP address", name)
		}
	}
	for _, ip := range n.IPs {
		if !ip.IsValid() || ip.IsUnspecified() || ip.Zone() != "" {
			return fmt.Errorf("%s is no address that a certificate can name: want one that clients connect to", ip)
		}
	}
	return nil
}

func (n Names) netIPs() []net.IP {
	var ips []net.IP
	for _, ip := range n.IPs {
		ips = append(ips, ip.AsSlice())
	}
	return ips
}

// isHostname checks the preferred syntax of RFC 1034 section 3.5, in which no
// wildcard stands.
func isHostname(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for _, label := range strings.Split(name, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func isLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	return strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
