package api

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// OperatorClient speaks to the operators' socket of a service. It is safe for
// concurrent use.
type OperatorClient struct{ c caller }

// NewOperatorClient returns a client for the socket at path. It connects with
// the first request.
func NewOperatorClient(path string) *OperatorClient {
	return NewOperatorClientOver(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
}

// NewOperatorClientOver returns a client that connects as dial does.
func NewOperatorClientOver(dial func(context.Context) (net.Conn, error)) *OperatorClient {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	return &OperatorClient{newCaller("http://operator", transport, MaxAnswer)}
}

// Close closes connections that are kept for a next request.
func (o *OperatorClient) Close() { o.c.http.CloseIdleConnections() }

// DryRun returns a client whose changes are
// decided, and refused, as they would be, but change nothing.
func (o *OperatorClient) DryRun() *OperatorClient {
	c := o.c
	c.query = "?dry_run=true"
	return &OperatorClient{c}
}

// ListQuery selects and pages a list; zero fields select everything.
type ListQuery struct {
	Status string // of machines
	Group  string // of machines and measurements
	// NextBoot selects machines by it: yes, no, unknown, or fail for the last two.
	NextBoot string
	Machine  string // of volumes and audit entries: a reference
	Volume   string // of recovery copies: a reference
	Alarm    string // of volumes
	Action   string // of audit entries
	After    string // Page.Next of the page before
	Limit    int    // at most MaxPage
}

func (q ListQuery) values() url.Values {
	values := url.Values{}
	for name, value := range map[string]string{
		"status": q.Status, "group": q.Group, "machine": q.Machine, "volume": q.Volume, "alarm": q.Alarm,
		"action": q.Action, "after": q.After,
		"next_boot": q.NextBoot,
	} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if q.Limit > 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	return values
}

// All goes through the pages of a list, beginning with the one that q names.
func All[T any](q ListQuery, page func(ListQuery) (Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			p, err := page(q)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range p.Items {
				if !yield(item, nil) {
					return
				}
			}
			if p.Next == "" {
				return
			}
			q.After = p.Next
		}
	}
}

// at puts a reference into a path.
func at(path, ref string) string {
	return strings.Replace(path, "{ref}", url.PathEscape(ref), 1)
}

// Status returns the state of the service.
func (o *OperatorClient) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, o.c, PathStatus, nil)
}

// Machines returns a page of machines.
func (o *OperatorClient) Machines(ctx context.Context, q ListQuery) (Page[Machine], error) {
	return get[Page[Machine]](ctx, o.c, PathMachines, q.values())
}

// Machine returns one machine.
func (o *OperatorClient) Machine(ctx context.Context, ref string) (MachineDetails, error) {
	return get[MachineDetails](ctx, o.c, at(PathMachine, ref), nil)
}

// ApproveMachine approves a pending machine.
func (o *OperatorClient) ApproveMachine(ctx context.Context, ref string, a ApproveMachine) (ApprovedMachine, error) {
	return post[ApprovedMachine](ctx, o.c, at(PathMachineApprove, ref), a)
}

// RenameMachine gives a machine another name.
func (o *OperatorClient) RenameMachine(ctx context.Context, ref, name string) (Machine, error) {
	return post[Machine](ctx, o.c, at(PathMachineRename, ref), RenameMachine{Name: name})
}

// RevokeMachine revokes a machine.
func (o *OperatorClient) RevokeMachine(ctx context.Context, ref, reason string) (Revoked, error) {
	return post[Revoked](ctx, o.c, at(PathMachineRevoke, ref), Revoke{Reason: reason})
}

// ReadmitMachine lets a machine in again.
func (o *OperatorClient) ReadmitMachine(ctx context.Context, ref string, r ReadmitMachine) (GrantedMachine, error) {
	return post[GrantedMachine](ctx, o.c, at(PathMachineReadmit, ref), r)
}

// ExpectRestore announces the restore of a machine.
func (o *OperatorClient) ExpectRestore(ctx context.Context, ref string, e ExpectRestore) (GrantedMachine, error) {
	return post[GrantedMachine](ctx, o.c, at(PathExpectRestore, ref), e)
}

// Explain says why a machine's last request ended as it did.
func (o *OperatorClient) Explain(ctx context.Context, ref string) (Explanation, error) {
	return get[Explanation](ctx, o.c, at(PathMachineExplain, ref), nil)
}

// Measurements returns a page of measurements.
func (o *OperatorClient) Measurements(ctx context.Context, q ListQuery) (Page[Measurement], error) {
	return get[Page[Measurement]](ctx, o.c, PathMeasurements, q.values())
}

// Measurement returns one measurement with its claims; group is needed where
// several groups have it.
func (o *OperatorClient) Measurement(ctx context.Context, ref, group string) (Measurement, error) {
	return get[Measurement](ctx, o.c, at(PathMeasurement, ref), ListQuery{Group: group}.values())
}

// ApproveMeasurement approves a measurement for a group.
func (o *OperatorClient) ApproveMeasurement(ctx context.Context, ref, group string) (Measurement, error) {
	return post[Measurement](ctx, o.c, at(PathMeasurementApprove, ref), ApproveMeasurement{Group: group})
}

// DismissMeasurement forgets a measurement that waits for approval.
func (o *OperatorClient) DismissMeasurement(ctx context.Context, ref, group string) (Measurement, error) {
	return post[Measurement](ctx, o.c, at(PathMeasurementDismiss, ref), DismissMeasurement{Group: group})
}

// RetireMeasurement takes the approval of a measurement away that newer ones took
// the place of.
func (o *OperatorClient) RetireMeasurement(ctx context.Context, ref string, r RetireMeasurement) (Measurement, error) {
	return post[Measurement](ctx, o.c, at(PathMeasurementRetire, ref), r)
}

// SubmitMeasurement enters a computed measurement.
func (o *OperatorClient) SubmitMeasurement(ctx context.Context, s SubmitMeasurement) (Measurement, error) {
	return post[Measurement](ctx, o.c, PathMeasurements, s)
}

// Volumes returns a page of volumes.
func (o *OperatorClient) Volumes(ctx context.Context, q ListQuery) (Page[Volume], error) {
	return get[Page[Volume]](ctx, o.c, PathVolumes, q.values())
}

// Volume returns one volume with the versions of its secret.
func (o *OperatorClient) Volume(ctx context.Context, ref string) (Volume, error) {
	return get[Volume](ctx, o.c, at(PathVolume, ref), nil)
}

// RecoveryKey has a version of a volume's recovery key disclosed, 0 being the current
// one, sealed to a key of this call. The caller wipes it.
func (o *OperatorClient) RecoveryKey(ctx context.Context, ref string, version uint32) (secret.Bytes, error) {
	d, err := newDisclosure(ref, version)
	if err != nil {
		return secret.Bytes{}, err
	}
	sealed, err := post[Sealed](ctx, o.c, at(PathVolumeRecoveryKey, ref), DiscloseRecoveryKey{Recipient: d.own.PublicKey(), Version: version})
	if err != nil {
		return secret.Bytes{}, err
	}
	return d.open(sealed)
}

// disclosure is one call that has a key disclosed.
type disclosure struct {
	own       *exchange.Recipient
	statement []byte
}

func newDisclosure(ref string, version uint32) (d disclosure, err error) {
	if d.own, err = exchange.NewRecipient(); err != nil {
		return d, err
	}
	d.statement, err = exchange.DisclosureStatement(ref, version, d.own.PublicKey())
	return d, err
}

func (d *disclosure) open(sealed Sealed) (secret.Bytes, error) {
	// Operators pin no service key: they know the service by its socket.
	pins := [][32]byte{exchange.Fingerprint(sealed.ServiceKey)}
	if err := exchange.VerifyResponse(pins, sealed.ServiceKey, d.statement, sealed.Response, sealed.Signature); err != nil {
		return secret.Bytes{}, err
	}
	return d.own.OpenDisclosure(d.statement, sealed.Response)
}

// RecoveryCopies returns a page of age copies of recovery keys.
func (o *OperatorClient) RecoveryCopies(ctx context.Context, q ListQuery) (Page[RecoveryCopy], error) {
	return get[Page[RecoveryCopy]](ctx, o.c, PathRecoveryCopies, q.values())
}

// AcceptVolume accepts the slots and tokens that a volume reported last.
func (o *OperatorClient) AcceptVolume(ctx context.Context, ref string, a AcceptVolume) (Volume, error) {
	return post[Volume](ctx, o.c, at(PathVolumeAccept, ref), a)
}

// AuditEntries returns the newest entries of the audit log, newest first.
func (o *OperatorClient) AuditEntries(ctx context.Context, q ListQuery) (Page[AuditEntry], error) {
	return get[Page[AuditEntry]](ctx, o.c, PathAudit, q.values())
}

// AuditHead returns the newest signed head.
func (o *OperatorClient) AuditHead(ctx context.Context) (AuditHead, error) {
	return get[AuditHead](ctx, o.c, PathAuditHead, nil)
}

// ExportAudit writes the whole log up to its last signed head to w, in the form
// that audit.VerifyExport reads.
func (o *OperatorClient) ExportAudit(ctx context.Context, w io.Writer) error {
	response, err := o.c.do(ctx, http.MethodGet, PathAuditExport, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("reading the audit export: %w", err)
	}
	return nil
}

// Backup makes the service write a backup of its store to a file on its host.
func (o *OperatorClient) Backup(ctx context.Context, path string) (Backup, error) {
	return post[Backup](ctx, o.c, PathBackup, BackupRequest{Path: path})
}
