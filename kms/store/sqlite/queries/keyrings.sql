-- name: KeyringVersions :many
SELECT * FROM keyring_versions ORDER BY keyring, version;

-- name: VersionsOfKeyring :many
SELECT * FROM keyring_versions WHERE keyring = ? ORDER BY version;

-- name: AddKeyringVersion :exec
INSERT INTO keyring_versions (keyring, version, status, created, changed, changed_by, destroy_at)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: ChangeKeyringVersion :execrows
UPDATE keyring_versions SET status = ?, changed = ?, changed_by = ?, destroy_at = ? WHERE keyring = ? AND version = ?;

-- name: Wrappers :many
SELECT * FROM wrappers ORDER BY keyring, version, root;

-- name: PutWrapper :exec
INSERT INTO wrappers (keyring, version, root, root_version, wrapped) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (keyring, version, root) DO UPDATE SET root_version = excluded.root_version, wrapped = excluded.wrapped;

-- name: DropWrapper :exec
DELETE FROM wrappers WHERE keyring = ? AND version = ? AND root = ?;

-- name: DropWrappers :exec
DELETE FROM wrappers WHERE keyring = ? AND version = ?;

-- name: LeaseEpoch :one
SELECT epoch FROM lease_epoch WHERE only = 1;

-- name: NextLeaseEpoch :exec
UPDATE lease_epoch SET epoch = epoch + 1 WHERE only = 1;
