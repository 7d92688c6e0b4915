package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"time"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/api"
	"keywright.dev/unlock"
)

const (
	// stageTimeout bounds one asking for the boots that can follow.
	stageTimeout = 2 * time.Minute
	// hookTimeout is the same for a hook, which the package manager waits for.
	hookTimeout = 30 * time.Second
)

func stage(ctx context.Context, h host, args []string) error {
	set := flags(h, "stage")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	uki := ukiFlag(set)
	hook := set.Bool("hook", false, "as a hook of the package manager: warn and never fail; silent where this machine is not enrolled")
	if err := parse(set, args); err != nil {
		return err
	}
	c, err := enrolledConfig(*config)
	if *hook && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var foresight unlock.Foresight
	if err == nil {
		if *hook {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, hookTimeout)
			defer cancel()
		}
		foresight, err = stageBoots(ctx, h, c, *uki)
	}
	switch {
	case err == nil && *hook:
		warn(h.stderr, foresight)
		return nil
	case err == nil:
		return printStaged(h.stdout, foresight)
	case *hook:
		fmt.Fprintf(h.stderr, "W: keywright-unlock: whether the next boot gets its keys is not known: %v\n", err)
		return nil
	default:
		return err
	}
}

func ukiFlag(set *flag.FlagSet) *string {
	return set.String("uki", "", "`FILE` of the unified kernel image of the next boot (default: the only one)")
}

func stageBoots(ctx context.Context, h host, c *unlock.Config, uki string) (unlock.Foresight, error) {
	identity, closeTPM, err := h.identity(ctx, c, 0)
	if err != nil {
		return unlock.Foresight{}, err
	}
	defer closeTPM()
	return h.foresee(ctx, c, identity, uki, false)
}

// foresee asks the service about the boots that can follow, first that of an image
// where one is named.
func (h host) foresee(ctx context.Context, c *unlock.Config, identity *tpm.Identity, uki string, check bool) (unlock.Foresight, error) {
	return h.foreseeBoots(ctx, c, identity, h.nextBoot(c, uki), check)
}

func (h host) foreseeBoots(ctx context.Context, c *unlock.Config, identity *tpm.Identity, next unlock.NextBoot, check bool) (unlock.Foresight, error) {
	ctx, cancel := context.WithTimeout(ctx, stageTimeout)
	defer cancel()
	end, err := h.run.BeginStaging(ctx, h.clock)
	if err != nil {
		return unlock.Foresight{}, err
	}
	defer end()
	pins, err := c.Pins()
	if err != nil {
		return unlock.Foresight{}, err
	}
	list, err := servers(c.Servers, stageServer)
	if err != nil {
		return unlock.Foresight{}, err
	}
	return (&unlock.Staging{
		TPM: identity, EventLog: c.EventLogPath(), Servers: list, Pins: pins, Volumes: c.Volumes,
		NextBoot: next,
		Mapped:   h.mapped, Ready: h.ready, Check: check,
		Note: func(format string, args ...any) { fmt.Fprintf(h.stderr, format+"\n", args...) },
	}).Run(ctx)
}

func stageServer(host string, client *api.GuestClient) unlock.StageServer {
	return unlock.StageServer{Host: host, Announcer: client}
}

// printStaged says what was staged and what would not get its keys; that of the
// next boot makes the exit code.
func printStaged(w io.Writer, f unlock.Foresight) error {
	fmt.Fprintf(w, "staged for this machine until %s:\n", f.Until.UTC().Format("2006-01-02 15:04Z"))
	for _, b := range f.Boots {
		printBoot(w, b)
	}
	if f.Boots[0].Code != "" {
		return verdict(unlock.ExitRefused)
	}
	return nil
}

func printBoot(w io.Writer, b unlock.ForeseenBoot) {
	if b.Code == "" {
		fmt.Fprintf(w, "  %s: gets its keys\n", b.From)
		return
	}
	fmt.Fprintf(w, "  %s: gets NO keys: %s\n", b.From, b.Detail)
	if b.Code == api.CodeMeasurement && b.Measurement != "" {
		fmt.Fprintf(w, "    an operator approves it with: keywright measurement approve %s\n", b.Measurement)
	}
}

// warn writes warnings as apt shows them.
func warn(w io.Writer, f unlock.Foresight) {
	if f.Unknown != nil {
		fmt.Fprintf(w, "W: keywright-unlock: what the next boot measures is not known: %v\n", f.Unknown)
	}
	for i, b := range f.Boots {
		if b.Code == "" {
			continue
		}
		which := "a boot of "
		if i == 0 {
			which = "the next boot, "
		}
		fmt.Fprintf(w, "W: keywright-unlock: %s%s, would get no keys: %s\n", which, b.From, b.Detail)
		if b.Code == api.CodeMeasurement && b.Measurement != "" {
			fmt.Fprintf(w, "W: keywright-unlock: before it, an operator approves: keywright measurement approve %s\n", b.Measurement)
		}
	}
}

func preflight(ctx context.Context, h host, args []string) error {
	set := flags(h, "preflight")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	uki := ukiFlag(set)
	if err := parse(set, args); err != nil {
		return err
	}
	c, err := enrolledConfig(*config)
	if err != nil {
		return err
	}
	identity, closeTPM, err := h.identity(ctx, c, 0)
	if err != nil {
		return err
	}
	defer closeTPM()
	return tellNextBoot(ctx, h, c, identity, *uki)
}

// tellNextBoot says whether the next boot gets its keys, in one line, and of
// other boots that don't.
func tellNextBoot(ctx context.Context, h host, c *unlock.Config, identity *tpm.Identity, uki string) error {
	f, err := h.foresee(ctx, c, identity, uki, true)
	var failure *unlock.Failure
	switch {
	case err == nil:
	case errors.As(err, &failure) && failure.Code == api.CodeUnreleased:
		// It says something of this boot alone.
		fmt.Fprintf(h.stdout, "next boot: unknown: %v\n", err)
		return verdict(unlock.ExitUnknown)
	default:
		fmt.Fprintf(h.stdout, "next boot: no: %v\n", err)
		return verdict(max(unlock.ExitCode(err), unlock.ExitRefused))
	}
	defer func() {
		for _, b := range f.Boots[1:] {
			if b.Code != "" {
				fmt.Fprintf(h.stdout, "another boot, %s: no: %s\n", b.From, b.Detail)
			}
		}
	}()
	next := f.Boots[0]
	switch {
	case next.Code != "":
		fmt.Fprintf(h.stdout, "next boot: no: %s: %s (%s)\n", next.Code, next.Detail, next.From)
		return verdict(unlock.ExitRefused)
	case f.Unknown != nil:
		fmt.Fprintf(h.stdout, "next boot: unknown: %v\n", f.Unknown)
		return verdict(unlock.ExitUnknown)
	default:
		fmt.Fprintf(h.stdout, "next boot: yes (%s)\n", next.From)
		return nil
	}
}
