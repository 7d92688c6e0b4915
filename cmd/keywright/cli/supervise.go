package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"keywright.dev/cmd/keywright/serve"
)

const (
	// watchdogShare is how often within its interval the watchdog is told.
	watchdogShare = 3
	// readyWait is the pause between two looks at whether a start is complete.
	readyWait = 10 * time.Millisecond
)

// supervise runs the service and tells the service manager how it is
// (sd_notify(3)); without one it tells nobody.
func supervise(ctx context.Context, s *serve.Service, logger *slog.Logger) error {
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	go watch(watching, s, logger)
	stopping := context.AfterFunc(ctx, func() {
		notify(logger, daemon.SdNotifyStopping)
		logger.Info("stopping: requests in flight finish first")
	})
	defer stopping()
	if err := s.Run(ctx); err != nil {
		return fmt.Errorf("running the service: %w", err)
	}
	logger.Info("stopped")
	return nil
}

// watch reports readiness once, and then that the service answers, as often as
// the manager wants to hear it.
func watch(ctx context.Context, s *serve.Service, logger *slog.Logger) {
	for s.Server.Ready(ctx) != nil {
		if !pause(ctx, readyWait) {
			return
		}
	}
	notify(logger, daemon.SdNotifyReady+"\nSTATUS=guests connect to "+s.GuestURL)
	logger.Info("ready", "guest_url", s.GuestURL, "service_key", s.Fingerprint)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	for pause(ctx, interval/watchdogShare) {
		if err := s.Server.Answers(ctx); err != nil {
			logger.Warn("the watchdog hears nothing while the service does not answer", "error", err)
			continue
		}
		notify(logger, daemon.SdNotifyWatchdog)
	}
}

func notify(logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("telling the service manager", "error", err)
	}
}

// pause returns false once ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// startPatience is how long the service manager is asked to wait on, in
// microseconds: longer than until the roots are asked again.
const startPatience = 30_000_000

// notifyWaiting tells the service manager that the start goes on, and why.
func notifyWaiting(logger *slog.Logger, cause error) {
	line, _, _ := strings.Cut(cause.Error(), "\n")
	notify(logger, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=waits for a root of trust: %.200s", startPatience, line))
}
