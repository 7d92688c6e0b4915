package server

import (
	"context"
	"net/http"
	"path/filepath"

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
		Route: Route{Method: http.MethodPost, Path: api.PathBackup, Action: "server.backup", Summary: "Write a backup of the running store to a file on the service's host."},
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

// backup is recorded before it is written, so that no copy leaves unrecorded.
func (o *operators) backup(ctx context.Context, _ struct{}, in *backupInput) (api.Backup, error) {
	path := in.Body.Path
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > audit.MaxValue {
		return api.Backup{}, &kms.UsageError{Text: "the path of a backup must be absolute, without . and .."}
	}
	s := o.server
	taken := s.Clock()
	fact := audit.Fact{Name: "path", Is: path}
	if err := s.Service.Record(ctx, stateOf(ctx).peer.actor(), "server.backup", "", fact); err != nil {
		return api.Backup{}, err
	}
	size, err := s.Backups.Backup(ctx, path)
	return api.Backup{Path: path, Bytes: size, Taken: taken}, err
}
