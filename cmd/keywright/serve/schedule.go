package serve

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms"
	"keywright.dev/kms/server"
	"keywright.dev/rotate"
	"keywright.dev/rotate/jobs"
)

// jobsFile is the queue of the service's own steps in the data folder.
const jobsFile = "rotation-jobs.db"

// schedule has the server rotate by itself, where the configuration says when.
func (s *Service) schedule(ctx context.Context, o Options, c *server.Config) (err error) {
	r := o.Config.Rotation
	if r.Schedule == config.ScheduleOff {
		return nil
	}
	if c.Schedule, err = rotate.ParseSchedule(r.Schedule, r.Zone); err != nil {
		return fmt.Errorf("reading rotation.schedule: %w", err)
	}
	s.jobs, err = jobs.Open(ctx, jobs.Config{Path: filepath.Join(o.Config.Server.Data, jobsFile), Logger: o.Logger})
	if err != nil {
		return err
	}
	c.Queue, c.StandEvery = s.jobs, cmp.Or(o.StandEvery, server.StandEvery)
	c.Leader = &kms.Candidate{
		Name: kms.RotationLeader, Holder: holder(), Store: s.store, Uptime: o.Uptime, Lasts: server.StandsInTerm * c.StandEvery,
	}
	return nil
}

// holder names this process among all, in a way that says to people which it is.
func holder() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	return fmt.Sprintf("%s/%d/%s", name, os.Getpid(), hex.EncodeToString(id[:]))
}
