package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/store/sqlite"
)

// serverFlags choose the configuration.
type serverFlags struct {
	config, data string
	dev          bool
}

func (p *Program) serverCommand() *cobra.Command {
	var flags serverFlags
	c := &cobra.Command{
		Use: "server", Short: "Run the service, or back up and restore its store",
		Long: `Run the service. Without a configuration file everything stands in
./keywright-data, which the first start makes: store, root key, operator socket.

The first interrupt stops in order: nothing is admitted any more, requests in
flight finish, the audit log is brought up to date. A second one ends at once.
A hangup (SIGHUP) is ignored: the configuration is read at the start.

--dev serves on loopback from a temporary folder that is removed at the end; no
check is weaker.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if flags.dev && flags.data != "" {
				return usagef("--dev makes a temporary folder: give it without --data")
			}
			return p.serve(c.Context(), flags)
		},
	}
	c.PersistentFlags().StringVar(&flags.config, "config", "", "configuration file (see keywright config reference)")
	c.PersistentFlags().StringVar(&flags.data, "data", "", "data folder (default ./keywright-data)")
	c.Flags().BoolVar(&flags.dev, "dev", false, "loopback and a temporary folder")
	c.AddCommand(p.serverBackup(&flags), p.serverRestore(&flags), p.identityCommand(&flags))
	return c
}

// settings returns the configuration that the flags choose.
func (f serverFlags) settings() (config.Config, error) {
	c := config.Default()
	if f.config != "" {
		var err error
		if c, err = config.Load(f.config); err != nil {
			return c, err
		}
	}
	if f.data != "" {
		c.Server.Data = f.data
	}
	return c, nil
}

// socket returns the operator socket of the service with these flags; empty
// without any.
func (f serverFlags) socket() (string, error) {
	if f.config == "" && f.data == "" {
		return "", nil
	}
	c, err := f.settings()
	return cmp.Or(c.Server.OperatorSocket, serve.SocketPath(c.Server.Data)), err
}

// forDevelopment puts everything on loopback and into a folder of its own.
func forDevelopment(c *config.Config) (remove func(), err error) {
	folder, err := os.MkdirTemp("", "keywright-dev-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary folder: %w", err)
	}
	c.Server.Data, c.Server.Roots, c.Server.OperatorSocket, c.Server.GuestURL = folder, nil, "", ""
	c.Server.GuestListen, c.Server.MetricsListen = "127.0.0.1:0", "127.0.0.1:0"
	return func() { _ = os.RemoveAll(folder) }, nil // a left-over temporary folder harms nobody
}

func (p *Program) serve(ctx context.Context, flags serverFlags) error {
	c, err := flags.settings()
	if err != nil {
		return err
	}
	if flags.dev {
		remove, err := forDevelopment(&c)
		if err != nil {
			return err
		}
		defer remove()
	}
	// A terminal that is gone, or a habit, is no reason to stop.
	signal.Ignore(syscall.SIGHUP)
	level, err := c.Log.SlogLevel()
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewJSONHandler(p.Err, &slog.HandlerOptions{Level: level}))
	service, err := serve.Open(ctx, serve.Options{
		Config: c, Version: p.Version, Credentials: p.Env("CREDENTIALS_DIRECTORY"), Logger: logger, Clock: p.Clock,
		Uptime: serve.Uptime, Waiting: func(cause error) { notifyWaiting(logger, cause) },
	})
	if err != nil {
		return err
	}
	p.announce(service, logger)
	return supervise(ctx, service, logger)
}

// rootAdvice names what is better than a key file beside the store.
const rootAdvice = "the root key is a file on this host: whoever reads it and the store has every key. " +
	"Keep it from backups of the data folder; better, pass it as a systemd credential that this host's TPM " +
	"encrypts (LoadCredentialEncrypted=root.key), or use a root of trust that is no file (server.roots)"

// announced is what a start prints.
type announced struct {
	GuestURL   string `json:"guest_url"`
	ServiceKey string `json:"service_key"`
	Socket     string `json:"operator_socket"`
	Metrics    string `json:"metrics"`
}

func (p *Program) announce(s *serve.Service, logger *slog.Logger) {
	if s.RootPath != "" {
		logger.Warn(rootAdvice, "root_key", s.RootPath)
	}
	a := announced{s.GuestURL, s.Fingerprint, s.Socket, "http://" + s.Metrics + api.PathMetrics}
	err := p.print(a, func(w io.Writer) {
		fields(w, "guests connect to", a.GuestURL, "service key", a.ServiceKey, "operators use", a.Socket, "metrics", a.Metrics)
		fmt.Fprintf(w, "enrol a machine, on it:  keywright-unlock enroll --server %s --service-key %s\n", a.GuestURL, a.ServiceKey)
	})
	if err != nil {
		logger.Warn("announcing the service", "error", err)
	}
}

func (p *Program) serverBackup(flags *serverFlags) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "backup FILE", Short: "Write a backup of the running service's store to a new file",
		Long: `Write a copy of the store, as it is at this moment, while the service goes on.
The service writes the file itself, so FILE is on its host. The copy holds keys
only in wrapped form: it opens with the root key, of which you keep a copy apart
from this one.

With --config or --data it is the service of that configuration or folder.`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := p.choose(flags); err != nil {
				return err
			}
			path, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("finding %s: %w", args[0], err)
			}
			b, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Backup, error) {
				return acting(o, dryRun).Backup(ctx, path)
			})
			if b, err = on(path, b, err); err != nil {
				return err
			}
			if dryRun {
				return p.print(api.BackupRequest{Path: path}, func(w io.Writer) { fmt.Fprintf(w, "would write a backup to %s\n", path) })
			}
			return p.print(b, func(w io.Writer) {
				fmt.Fprintf(w, "%s holds the store of %s, %d bytes\n", b.Path, clock(b.Taken), b.Bytes)
			})
		},
	}
	addDryRun(c, &dryRun)
	return c
}

// choose makes the service with these flags the one that is spoken to.
func (p *Program) choose(flags *serverFlags) error {
	socket, err := flags.socket()
	switch {
	case err != nil:
		return err
	case socket != "" && p.address != "":
		return usagef("--addr names the service already: leave --config and --data out")
	case socket != "":
		p.address = socket
	}
	return nil
}

func (p *Program) serverRestore(flags *serverFlags) *cobra.Command {
	var replace, dryRun bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "Make the store from a backup; the service must be stopped",
		Long: `Make the store of the data folder from a backup. A store that is there is kept
beside it, and only with --replace. The root key is not in a backup: bring it
back as well.

A restored store knows nothing of what happened after the backup: machines that
were revoked since are active again, until you revoke them again. Do that before
guests reach the service: start it with server.guest_listen = "127.0.0.1:0".`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			settings, err := flags.settings()
			if err != nil {
				return err
			}
			r := sqlite.Restoration{From: args[0], Path: serve.StorePath(settings.Server.Data), Replace: replace}
			if dryRun {
				if err := refusedRestore(r, sqlite.CheckRestore(c.Context(), r)); err != nil {
					return err
				}
				return p.print(r, func(w io.Writer) { fmt.Fprintf(w, "would restore %s to %s\n", r.From, r.Path) })
			}
			return p.restore(c.Context(), r)
		},
	}
	c.Flags().BoolVar(&replace, "replace", false, "replace the store that is there")
	addDryRun(c, &dryRun)
	return c
}

// afterRestore says what a restored store needs.
const afterRestore = `revoke again what was revoked after the backup, before guests reach the service:
start it with guest_listen = "127.0.0.1:0", run keywright revoke, start it as before
`

// restored is what restore prints.
type restored struct {
	Store    string `json:"store"`
	Replaced string `json:"replaced,omitempty"`
}

func refusedRestore(r sqlite.Restoration, err error) error {
	if errors.Is(err, kms.ErrExists) {
		return fmt.Errorf("%s exists: give --replace, and it is kept beside the restored one", r.Path)
	}
	return err
}

func (p *Program) restore(ctx context.Context, r sqlite.Restoration) error {
	replaced, err := sqlite.Restore(ctx, r)
	if err := refusedRestore(r, err); err != nil {
		return err
	}
	return p.print(restored{r.Path, replaced}, func(w io.Writer) {
		fmt.Fprintf(w, "%s is restored from %s\n", r.Path, r.From)
		if replaced != "" {
			fmt.Fprintf(w, "what it replaced is kept as %s\n", replaced)
		}
		if os.Geteuid() == 0 {
			fmt.Fprintln(w, "it belongs to the owner of its folder: the service has to run as that user")
		}
		fmt.Fprint(w, afterRestore)
	})
}
