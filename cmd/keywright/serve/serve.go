package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/pki"
	"keywright.dev/kms/policy"
	"keywright.dev/kms/recovery"
	"keywright.dev/kms/root"
	"keywright.dev/kms/server"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/rotate"
	"keywright.dev/rotate/jobs"
)

// Options are what a service is made of beside its data folder.
type Options struct {
	Config  config.Config
	Version string
	// Credentials is the folder of systemd's credentials; empty without.
	Credentials string
	Logger      *slog.Logger
	Clock       func() time.Time
	// Uptime is CLOCK_BOOTTIME.
	Uptime func() time.Duration
	// StandEvery is how often the service looks who rotates by the schedule; 0 is
	// [server.StandEvery].
	StandEvery time.Duration
	// Waiting is told why a start waits.
	Waiting func(error)
}

// Service is an opened installation: it listens, and serves once it runs.
type Service struct {
	// GuestURL and Fingerprint are what guests are told.
	GuestURL    string
	Fingerprint string
	// Socket is the operators'; Metrics the address of the metrics listener.
	Socket  string
	Metrics string
	// RootPath is a file that has a root's key in the clear; empty without.
	RootPath string
	// Server holds the routes.
	Server *server.Server

	store      *sqlite.Store
	jobs       *jobs.Queue // nil where nothing is rotated by itself
	roots      []root.Root
	keys       *kms.Keys
	challenges *kms.Challenges
	listeners  server.Listeners
}

// parts are what the domain is made of.
type parts struct {
	store      *sqlite.Store
	keys       *kms.Keys
	challenges *kms.Challenges
	ca         *pki.CA
	identities *kms.Identities
	log        *audit.Signer
	roots      []string
	restored   bool
}

// Open opens the data folder and the listeners. What it returned must be run,
// or closed.
func Open(ctx context.Context, o Options) (s *Service, err error) {
	c := &o.Config
	if c.Server.OperatorSocket == "" {
		c.Server.OperatorSocket = SocketPath(c.Server.Data)
	}
	// Before anything is made or migrated.
	said, err := readDocuments(*c)
	if err != nil {
		return nil, err
	}
	if err := prepareFolder(c.Server.Data); err != nil {
		return nil, err
	}
	s = &Service{Socket: c.Server.OperatorSocket}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	chosen, err := openRoots(ctx, c.Server, o.Credentials)
	s.roots = chosen.list
	if err != nil {
		return s, err
	}
	s.RootPath = chosen.clear
	// The store refuses a second service before that could take the socket.
	if err := s.openStore(ctx, o, chosen); err != nil {
		return s, err
	}
	if s.listeners, err = listen(ctx, c.Server); err != nil {
		return s, err
	}
	return s, s.wire(ctx, o, said, chosen, server.NewMetrics())
}

// openStore opens the store, or makes it: beside a root key that was there
// before, a store that is missing may be one that was lost.
func (s *Service) openStore(ctx context.Context, o Options, chosen rootChoice) error {
	path := StorePath(o.Config.Server.Data)
	missing, err := checkStore(path)
	if err != nil {
		return err
	}
	s.store, err = sqlite.Open(ctx, sqlite.Config{Path: path, Clock: o.Clock, Logger: o.Logger})
	if err == nil && missing && chosen.path != "" && !chosen.made {
		o.Logger.Warn("there was a root key and no store: this is a new installation with a new service key, "+
			"which no machine knows; if there was one before, stop and restore its store", "store", path)
	}
	return err
}

// wire makes the domain and the server over the store.
func (s *Service) wire(ctx context.Context, o Options, said documents, chosen rootChoice, metrics *server.Metrics) error {
	p, err := s.openParts(ctx, o, chosen, metrics)
	if err != nil {
		return err
	}
	recipients, err := recovery.ParseRecipients(o.Config.Recovery.AgeRecipients)
	if err != nil {
		return fmt.Errorf("reading recovery.age_recipients: %w", err)
	}
	domain, err := kms.New(kms.Config{
		Store: timedStore{p.store, metrics, o.Clock}, Keys: p.keys, Challenges: p.challenges, Identities: p.identities, Identity: identityMaker(), Log: p.log,
		Trust: trustOf(said.trust), Recovery: recipients, ReencryptRate: uint64(o.Config.Rotation.ReencryptRate), Policy: func() kms.Policy { return said.policy }, Clock: o.Clock, Random: rand.Reader,
	})
	if err != nil {
		return err
	}
	bound := addrPort(s.listeners.Guest)
	names, err := pki.ParseNames(namesOf(o.Config.Server, bound))
	if err != nil {
		return fmt.Errorf("reading server.names: %w", err)
	}
	certificates, err := pki.NewSource(p.ca, names, o.Clock)
	if err != nil {
		return err
	}
	limits, err := limitsOf(o.Config.Limits)
	if err != nil {
		return err
	}
	s.GuestURL, s.Fingerprint = guestURL(o.Config.Server, bound), exchange.FormatFingerprint(domain.ServiceKey())
	s.Metrics = s.listeners.Metrics.Addr().String()
	c := server.Config{
		Version: o.Version, Restored: p.restored, Service: domain, Store: p.store, Backups: backups{p.store, p.log.Verifier()},
		Log: p.log.Verifier(), Policy: func() *policy.Engine { return said.policy }, Rotation: said.rotation,
		Excuses: func() ([]rotate.Excuse, error) { return openExcuses(o.Config.Rotation, o.Clock()) },
		TLS:     pki.TLSConfig(certificates.GetCertificate), GuestURL: s.GuestURL,
		Roots: p.roots, Leases: p.keys.Leases, Challenges: challenges, Owner: os.Geteuid(), Limits: limits, Upkeep: p.challenges.RotateIfDue,
		Metrics: metrics, Logger: o.Logger, Clock: o.Clock, Random: rand.Reader,
	}
	if err := s.schedule(ctx, o, &c); err != nil {
		return err
	}
	s.Server, err = server.New(c)
	return err
}

// openParts opens the service's own keys, and makes them in a new store.
func (s *Service) openParts(ctx context.Context, o Options, chosen rootChoice, metrics *server.Metrics) (p parts, err error) {
	p.store, p.roots = s.store, chosen.uris()
	s.keys, err = awaitKeys(ctx, kms.KeysConfig{
		Store: p.store, Roots: meter(chosen.list, metrics.RootCall), Clock: o.Clock, Uptime: o.Uptime, Random: rand.Reader, Lease: time.Duration(o.Config.Server.Lease),
	}, o.Waiting, o.Logger)
	if err != nil {
		return p, chosen.wrong(ctx, p.store, err)
	}
	p.keys = s.keys
	if p.restored, err = p.keys.Restored(ctx); err != nil {
		return p, err
	}
	if p.ca, err = openCA(ctx, p.keys, o.Clock); err != nil {
		return p, err
	}
	if p.identities, err = kms.OpenIdentities(ctx, p.keys, identityMaker()); err != nil {
		return p, err
	}
	host := namesOf(o.Config.Server, addrPort(s.listeners.Guest))[0]
	if p.log, err = openLog(ctx, p.keys, o.Config.Audit.Origin, originOf(host)); err != nil {
		return p, err
	}
	s.challenges, err = kms.OpenChallenges(ctx, p.keys, o.Clock, rand.Reader)
	p.challenges = s.challenges
	return p, err
}

func limitsOf(c config.Limits) (server.Limits, error) {
	limits := server.DefaultLimits()
	balancers, err := c.Prefixes()
	limits.Connections, limits.PerSource = c.Connections, c.ConnectionsPerSource
	limits.Rate, limits.Burst = c.RequestsPerSecond, c.RequestsBurst
	limits.Releases, limits.Enrolments = c.Releases, c.Enrolments
	limits.BodyMemory, limits.Balancers = int64(c.BodyMemory), balancers
	limits.BodyTimeout = time.Duration(c.BodyTimeout)
	return limits, err
}

// Run serves until ctx ends, and then stops in order; see [server.Server.Run].
// It closes the service.
func (s *Service) Run(ctx context.Context) error {
	err := s.Server.Run(ctx, s.listeners)
	s.listeners = server.Listeners{}
	return errors.Join(err, s.Close())
}

// Close closes what Open opened and wipes the keys.
func (s *Service) Close() error {
	closeListeners(s.listeners)
	if s.challenges != nil {
		s.challenges.Wipe()
	}
	if s.keys != nil {
		s.keys.Wipe()
	}
	err := closeRoots(s.roots)
	if s.jobs != nil {
		err = errors.Join(err, s.jobs.Close())
	}
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	return err
}
