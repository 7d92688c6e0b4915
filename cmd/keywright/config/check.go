package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Check reports every value that cannot be meant. Files are not looked at.
func (c *Config) Check() error {
	return errors.Join(c.Server.check(), c.Limits.check(), c.Policy.check(), c.Audit.check(), c.Log.check())
}

func (s *Server) check() error {
	var errs []error
	if s.Data == "" {
		errs = append(errs, errors.New("server.data: want a folder"))
	}
	errs = append(errs, checkListen("server.guest_listen", s.GuestListen), checkListen("server.metrics_listen", s.MetricsListen))
	if s.GuestURL != "" {
		u, err := url.Parse(s.GuestURL)
		if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			errs = append(errs, errors.New("server.guest_url: want https://HOST:PORT and nothing behind it"))
		}
	}
	// sun_path has room for 107 bytes and a NUL (unix(7)).
	if len(s.OperatorSocket) > 107 {
		errs = append(errs, errors.New("server.operator_socket: the path of a unix socket has at most 107 bytes"))
	}
	return errors.Join(errs...)
}

func checkListen(key, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf(`%s: want ADDRESS:PORT, such as "0.0.0.0:8443" or "[::]:8443"`, key)
	}
	return nil
}

func (l *Limits) check() error {
	var errs []error
	atLeast := func(key string, value, least int) {
		if value < least {
			errs = append(errs, fmt.Errorf("limits.%s: want at least %d", key, least))
		}
	}
	atLeast("connections", l.Connections, 16)
	atLeast("connections_per_source", l.ConnectionsPerSource, 4)
	atLeast("requests_burst", l.RequestsBurst, 4)
	atLeast("releases", l.Releases, 1)
	atLeast("enrolments", l.Enrolments, 1)
	if !(l.RequestsPerSecond > 0) {
		errs = append(errs, errors.New("limits.requests_per_second: want more than 0"))
	}
	if l.BodyMemory < 16<<20 {
		errs = append(errs, errors.New("limits.body_memory: want at least 16MiB"))
	}
	if l.BodyTimeout <= 0 {
		errs = append(errs, errors.New("limits.body_timeout: want a time such as 10s"))
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
			return nil, fmt.Errorf("limits.balancers: entry %d is neither an address nor a range such as 10.0.0.0/29", i+1)
		}
		ranges = append(ranges, prefix.Masked())
	}
	return ranges, nil
}

func (p *Policy) check() error {
	if !p.Shipped && len(p.Files) == 0 {
		return errors.New("policy: without shipped policies and without files nothing is permitted: name files, or set shipped = true")
	}
	return nil
}

func (a *Audit) check() error {
	if len(a.Origin) > 200 || strings.ContainsAny(a.Origin, " +\t\n") {
		return errors.New("audit.origin: want at most 200 characters without spaces and +")
	}
	return nil
}

func (l *Log) check() error {
	if _, err := l.SlogLevel(); err != nil {
		return errors.New("log.level: want debug, info, warn or error")
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
