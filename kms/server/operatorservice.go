package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
)

type backupInput struct {
	DryRunInput
	Body api.BackupRequest
}

func (o *operators) addService() {
	register(o, operation[noInput, struct{}, api.Status]{
		Route: Route{Method: http.MethodGet, Path: api.PathStatus, Action: "server.status", Summary: "The state of the service."},
		find:  nothing[noInput], act: o.status,
	})
	register(o, operation[backupInput, struct{}, api.Backup]{
		Route: Route{Method: http.MethodPost, Path: api.PathBackup, Action: ActionBackup, Summary: "Write a backup of the running store to a file on the service's host."},
		find:  nothing[backupInput], act: o.backup,
	})
}

func (o *operators) status(ctx context.Context, _ struct{}, _ *noInput) (api.Status, error) {
	s := o.server
	counts, err := s.Store.Counts(ctx)
	if err != nil {
		return api.Status{}, err
	}
	last, err := s.Backups.LastBackup(ctx)
	if err != nil {
		return api.Status{}, err
	}
	wanted, err := s.wantedAfterAll(ctx)
	if err != nil {
		return api.Status{}, err
	}
	reasons := s.notReady(ctx)
	status := api.Status{
		Version: s.Version, ServiceKey: exchange.FormatFingerprint(s.Service.ServiceKey()), GuestURL: s.GuestURL, Started: s.started,
		Ready: len(reasons) == 0, Reasons: reasons, Degraded: append(s.degraded(), wanted...), Roots: s.Roots,
		Machines: make(map[string]int64), Volumes: counts.Volumes, Alarms: make(map[string]int64),
		Audit:      api.AuditStatus{Entries: counts.Entries, Sequenced: counts.Sequenced, Key: s.Log.String()},
		LastBackup: stamp(last), KeysSince: !last.IsZero() && counts.LastSecret.After(last),
	}
	for _, state := range []kms.MachineStatus{kms.MachinePending, kms.MachineActive, kms.MachineRevoked} {
		status.Machines[string(state)] = counts.Machines[state]
	}
	for _, alarm := range kms.Alarms() {
		status.Alarms[string(alarm)] = counts.Alarms[alarm]
	}
	return status, nil
}

// wantedAfterAll tells of keyring versions that wait for their destruction while
// something depends on them: they are not erased, and open nothing meanwhile.
func (s *Server) wantedAfterAll(ctx context.Context) ([]string, error) {
	list, err := s.Service.Keyrings(ctx)
	if err != nil {
		return nil, err
	}
	var wanted []string
	for _, k := range list {
		for _, v := range k.Versions {
			if v.Status == kms.KeyringScheduled && k.Count(v.Version) > 0 {
				ref := fmt.Sprintf("%s@%d", k.Name, v.Version)
				wanted = append(wanted, fmt.Sprintf("keyring/%s waits for its destruction, and something asked for it: `keywright keyring census %s`, then cancel-destroy or dismiss-outside", ref, ref))
			}
		}
	}
	return wanted, nil
}

// ActionBackup is the action of a backup. Two entries record it: that it was
// allowed, so that no copy leaves unrecorded, and how it ended.
const ActionBackup = "server.backup"

// The facts in the entry of one that is complete: its size, and when it was begun, from
// when on it may lack what is written.
const (
	factBackupSize  = "bytes"
	factBackupTaken = "taken"
)

// BackupTaken returns as of when a backup is that an entry records; false where it
// records none that is complete.
func BackupTaken(e audit.Entry) (taken time.Time, done bool) {
	i := slices.IndexFunc(e.Facts, func(f audit.Fact) bool { return f.Name == factBackupTaken })
	if e.Action != ActionBackup || e.Outcome != audit.Done || i < 0 {
		return time.Time{}, false
	}
	taken, err := time.Parse(time.RFC3339Nano, e.Facts[i].Is)
	return taken, err == nil
}

func (o *operators) backup(ctx context.Context, _ struct{}, in *backupInput) (api.Backup, error) {
	s, by, path := o.server, in.operator(ctx), in.Body.Path
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > audit.MaxValue {
		return api.Backup{}, &kms.UsageError{Text: "the path of a backup must be absolute, without . and .."}
	}
	answer := api.Backup{Path: path, Taken: s.Clock()}
	if by.DryRun {
		return answer, backupFailure(s.Backups.CheckBackup(path))
	}
	record := func(outcome audit.Outcome, facts ...audit.Fact) error {
		facts = append([]audit.Fact{{Name: "path", Is: path}}, facts...)
		return s.Service.Record(ctx, by, ActionBackup, "", outcome, facts...)
	}
	if err := record(audit.Allowed); err != nil {
		return api.Backup{}, err
	}
	var err error
	if answer.Bytes, err = s.Backups.Backup(ctx, path); err != nil {
		return api.Backup{}, errors.Join(backupFailure(err), record(audit.Failed, audit.Fact{Name: "detail", Is: err.Error()}))
	}
	return answer, record(audit.Done,
		audit.Fact{Name: factBackupSize, Is: strconv.FormatInt(answer.Bytes, 10)},
		audit.Fact{Name: factBackupTaken, Is: answer.Taken.UTC().Format(time.RFC3339Nano)})
}

// backupFailure tells the operator what the host's file system said: a full
// disk or a missing folder is theirs to mend.
func backupFailure(err error) error {
	var path *fs.PathError
	switch {
	case errors.Is(err, kms.ErrExists):
		return failWith(api.CodeConflict, "a file of that name exists: a backup replaces nothing")
	case errors.As(err, &path):
		return failWith(api.CodeFile, "writing the backup failed: "+path.Err.Error())
	}
	return err
}
