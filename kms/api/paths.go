package api

// Paths of the operator listener, in the form of [net/http.ServeMux]: {ref} is a
// name, an id, or the beginning of an id that no other one has.
const (
	PathStatus             = "/v1/status"
	PathMachines           = "/v1/machines"
	PathMachine            = "/v1/machines/{ref}"
	PathMachineApprove     = "/v1/machines/{ref}/approve"
	PathMachineRename      = "/v1/machines/{ref}/rename"
	PathMachineRevoke      = "/v1/machines/{ref}/revoke"
	PathMachineReadmit     = "/v1/machines/{ref}/readmit"
	PathExpectRestore      = "/v1/machines/{ref}/expect-restore"
	PathMachineKeyring     = "/v1/machines/{ref}/keyring"
	PathMachineExplain     = "/v1/machines/{ref}/explanation"
	PathMeasurements       = "/v1/measurements"
	PathMeasurement        = "/v1/measurements/{ref}"
	PathMeasurementApprove = "/v1/measurements/{ref}/approve"
	PathMeasurementDismiss = "/v1/measurements/{ref}/dismiss"
	PathMeasurementRetire  = "/v1/measurements/{ref}/retire"
	PathVolumes            = "/v1/volumes"
	PathVolume             = "/v1/volumes/{ref}"
	PathVolumeRecoveryKey  = "/v1/volumes/{ref}/recovery-key"
	PathRecoveryCopies     = "/v1/recovery-copies"
	PathVolumeAccept       = "/v1/volumes/{ref}/accept"
	PathVolumeRekey        = "/v1/volumes/{ref}/rekey"
	PathVolumeDestroy      = "/v1/volumes/{ref}/destroy-secret"
	PathVolumeHeaderCopy   = "/v1/volumes/{ref}/header-copy"
	PathVolumeWithdraw     = "/v1/volumes/{ref}/withdraw-rekey"
	PathVolumeReencrypt    = "/v1/volumes/{ref}/reencrypt"
	PathVolumeLose         = "/v1/volumes/{ref}/lose-keyslots"
	PathOrders             = "/v1/orders"
	PathRotationPlan       = "/v1/rotation/plan"
	PathRotationChain      = "/v1/rotation/chain"
	PathRotation           = "/v1/rotation"
	PathRotationPause      = "/v1/rotation/pause"
	PathRotationResume     = "/v1/rotation/resume"
	PathRotationRuns       = "/v1/rotation/runs"
	PathRotationRunEnd     = "/v1/rotation/runs/{ref}/end"
	PathKeyrings           = "/v1/keyrings"
	PathKeyring            = "/v1/keyrings/{ref}"
	PathKeyringCensus      = "/v1/keyrings/{ref}/census"
	PathKeyringRotate      = "/v1/keyrings/{ref}/rotate"
	PathKeyringRewrap      = "/v1/keyrings/{ref}/rewrap"
	PathKeyringEnable      = "/v1/keyrings/{ref}/enable"
	PathKeyringDisable     = "/v1/keyrings/{ref}/disable"
	PathKeyringDestroy     = "/v1/keyrings/{ref}/destroy"
	PathKeyringDismiss     = "/v1/keyrings/{ref}/dismiss-outside"
	PathKeyringCancel      = "/v1/keyrings/{ref}/cancel-destroy"
	PathAudit              = "/v1/audit"
	PathAuditHead          = "/v1/audit/head"
	PathAuditExport        = "/v1/audit/export"
	PathBackup             = "/v1/backup"
)

// Paths of the metrics listener. They tell nothing about machines or keys.
const (
	PathMetrics = "/metrics"
	// PathHealth answers 200 while the process lives.
	PathHealth = "/healthz"
	// PathReady answers 200 while requests can be served, else 503.
	PathReady = "/readyz"
)
