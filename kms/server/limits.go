package server

import (
	"net/netip"
	"time"
)

// Limits bound what callers can make the guest listener hold. The zero value
// limits everything to nothing: begin with [DefaultLimits].
type Limits struct {
	// Connections bounds open connections; PerSource those of one source.
	Connections, PerSource int
	// Rate and Burst bound the requests of one source: so many a second, after
	// so many at once.
	Rate  float64
	Burst int
	// Sources bounds how many sources are remembered for that.
	Sources int
	// Releases, Enrolments and Challenges bound how many requests of that lane
	// are worked on at once. Boots have lanes of their own.
	Releases, Enrolments, Challenges int
	// Keys likewise bounds the key API, that of operators included.
	Keys int
	// BodyMemory bounds the bytes that request bodies take, received and decoded.
	BodyMemory int64
	// BodyTimeout bounds how long a body may take to arrive.
	BodyTimeout time.Duration
	// Balancers are addresses that many machines share: the limits of one
	// source do not apply to them.
	Balancers []netip.Prefix
}

// DefaultLimits hold memory below 512 MiB even where every limit is exhausted.
func DefaultLimits() Limits {
	return Limits{
		Connections: 1024, PerSource: 256,
		Rate: 50, Burst: 200, Sources: 16384,
		Releases: 128, Enrolments: 32, Challenges: 64, Keys: 8,
		BodyMemory: 96 << 20, BodyTimeout: 10 * time.Second,
	}
}

// Times that bound how long a caller can take.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 15 * time.Second
	// requestGrace is how long a connection may take to send a request, however
	// many others want its place.
	requestGrace = 2 * time.Second
	// laneTimeout bounds how long a request waits for its turn.
	laneTimeout = 5 * time.Second
	// maxHeaderBytes bounds a request's header; net/http adds 4 KiB.
	maxHeaderBytes = 8 << 10
)

// Times after which a caller that was turned away should come again.
const (
	retryBusy        = 2 * time.Second
	retryUnavailable = 5 * time.Second
)

// sourceOf returns what a caller is counted by: an IPv4 address, or the /64
// that one IPv6 host can use freely.
func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func addressOf(remote string) netip.Addr {
	host, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return host.Addr().Unmap().WithZone("")
}

func (l *Limits) shared(a netip.Addr) bool {
	for _, p := range l.Balancers {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
