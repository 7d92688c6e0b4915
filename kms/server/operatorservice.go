package server

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
)

type backupInput struct {
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
	reasons := s.notReady(ctx)
	status := api.Status{
		Version: s.Version, ServiceKey: s.Fingerprint, GuestURL: s.GuestURL, Started: s.started,
		Ready: len(reasons) == 0, Reasons: reasons, Roots: s.Roots,
		Machines: make(map[string]int64), Volumes: counts.Volumes,
		Audit:      api.AuditStatus{Entries: counts.Entries, Sequenced: counts.Sequenced, Key: s.Log.String()},
		LastBackup: stamp(last),
	}
	for _, state := range []kms.MachineStatus{kms.MachinePending, kms.MachineActive, kms.MachineRevoked} {
		status.Machines[string(state)] = counts.Machines[state]
	}
	return status, nil
}

// ActionBackup is the action of a backup. Two entries record it: that it began,
// so that no copy leaves unrecorded, and that it is complete.
const ActionBackup = "server.backup"

// factBackupSize is in the second entry only.
const factBackupSize = "bytes"

// IsBackupDone tells whether an entry records a complete backup.
func IsBackupDone(e audit.Entry) bool {
	return e.Action == ActionBackup && e.Outcome == audit.Done &&
		slices.ContainsFunc(e.Facts, func(f audit.Fact) bool { return f.Name == factBackupSize })
}

func (o *operators) backup(ctx context.Context, _ struct{}, in *backupInput) (api.Backup, error) {
	path := in.Body.Path
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > audit.MaxValue {
		return api.Backup{}, &kms.UsageError{Text: "the path of a backup must be absolute, without . and .."}
	}
	s, actor := o.server, stateOf(ctx).peer.actor()
	taken, where := s.Clock(), audit.Fact{Name: "path", Is: path}
	if err := s.Service.Record(ctx, actor, ActionBackup, "", where); err != nil {
		return api.Backup{}, err
	}
	size, err := s.Backups.Backup(ctx, path)
	if err != nil {
		return api.Backup{}, backupFailure(err)
	}
	done := audit.Fact{Name: factBackupSize, Is: strconv.FormatInt(size, 10)}
	return api.Backup{Path: path, Bytes: size, Taken: taken}, s.Service.Record(ctx, actor, ActionBackup, "", where, done)
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
