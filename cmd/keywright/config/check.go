package config

import (
	"errors"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/recovery"
	"keywright.dev/rotate"
)

// Check reports every value that cannot be meant. Files are not looked at.
func (c *Config) Check() error {
	return errors.Join(c.Server.check(), c.Limits.check(), c.Recovery.check(), c.Policy.check(), c.Rotation.check(), c.Audit.check(), c.Log.check())
}

func (s *Server) check() error {
	var errs []error
	if s.Data == "" {
		errs = append(errs, bad("server.data", "want a folder"))
	}
	errs = append(errs, checkListen("server.guest_listen", s.GuestListen), checkListen("server.metrics_listen", s.MetricsListen))
	if samePort(s.GuestListen, s.MetricsListen) {
		errs = append(errs, bad("server.metrics_listen", "want another port than that of server.guest_listen"))
	}
	if s.GuestURL != "" && !isGuestURL(s.GuestURL) {
		errs = append(errs, bad("server.guest_url", "want https://HOST:PORT and nothing else"))
	}
	if time.Duration(s.Lease) < kms.MinLease {
		errs = append(errs, bad("server.lease", "want at least one minute"))
	}
	// sun_path has room for 107 bytes and a NUL (unix(7)).
	if len(s.OperatorSocket) > 107 {
		errs = append(errs, bad("server.operator_socket", "the path of a unix socket has at most 107 bytes"))
	}
	return errors.Join(errs...)
}

func (r *Rotation) check() error {
	if r.Schedule == ScheduleOff {
		return nil
	}
	if _, err := rotate.ParseSchedule(r.Schedule, r.Zone); err != nil {
		return bad("rotation.schedule", `want "off" or a cron expression: %v`, err)
	}
	return nil
}

// isGuestURL accepts scheme, host and port alone.
func isGuestURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return false
	}
	if u.Port() != "" {
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
			return false
		}
	}
	return strings.TrimSuffix(text, "/") == "https://"+u.Host && !strings.HasSuffix(u.Host, ":")
}

// samePort tells whether two listeners would be in each other's way.
func samePort(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	everywhere := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return hostA == hostB || everywhere(hostA) || everywhere(hostB)
}

func checkListen(key, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return bad(key, `want ADDRESS:PORT, such as "0.0.0.0:8443" or "[::]:8443"`)
	}
	return nil
}

func (l *Limits) check() error {
	var errs []error
	atLeast := func(key string, value, least int) {
		if value < least {
			errs = append(errs, bad("limits."+key, "want at least %d", least))
		}
	}
	atLeast("connections", l.Connections, 16)
	atLeast("connections_per_source", l.ConnectionsPerSource, 4)
	atLeast("requests_burst", l.RequestsBurst, 4)
	atLeast("releases", l.Releases, 1)
	atLeast("enrolments", l.Enrolments, 1)
	if !(l.RequestsPerSecond > 0) || math.IsInf(l.RequestsPerSecond, 0) {
		errs = append(errs, bad("limits.requests_per_second", "want more than 0, and not infinitely many"))
	}
	if l.BodyMemory < 16<<20 {
		errs = append(errs, bad("limits.body_memory", "want at least 16MiB"))
	}
	if l.BodyTimeout <= 0 {
		errs = append(errs, bad("limits.body_timeout", "want a time such as 10s"))
	}
	_, err := l.Prefixes()
	return errors.Join(append(errs, err)...)
}

// Prefixes returns the balancers as ranges.
func (l *Limits) Prefixes() ([]netip.Prefix, error) {
	var ranges []netip.Prefix
	for i, text := range l.Balancers {
		if address, err := netip.ParseAddr(text); err == nil {
			ranges = append(ranges, netip.PrefixFrom(address, address.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, bad("limits.balancers", "entry %d is neither an address nor a range such as 10.0.0.0/29", i+1)
		}
		ranges = append(ranges, prefix.Masked())
	}
	return ranges, nil
}

func (r *Recovery) check() error {
	if _, err := recovery.ParseRecipients(r.AgeRecipients); err != nil {
		return bad("recovery.age_recipients", "%v", err)
	}
	return nil
}

func (p *Policy) check() error {
	if !p.Shipped && len(p.Files) == 0 {
		return bad("policy", "without shipped policies and without files nothing is permitted: name files, or set shipped = true")
	}
	return nil
}

func (a *Audit) check() error {
	if len(a.Origin) > 200 || strings.ContainsAny(a.Origin, " +\t\n") {
		return bad("audit.origin", "want at most 200 characters without spaces and +")
	}
	return nil
}

func (l *Log) check() error {
	if _, err := l.SlogLevel(); err != nil {
		return bad("log.level", "want debug, info, warn or error")
	}
	return nil
}

// SlogLevel returns the level for package slog.
func (l *Log) SlogLevel() (slog.Level, error) {
	var level slog.Level
	if strings.ToLower(l.Level) != l.Level || strings.ContainsAny(l.Level, "+-") {
		return level, errors.New("not a level")
	}
	return level, level.UnmarshalText([]byte(l.Level))
}
