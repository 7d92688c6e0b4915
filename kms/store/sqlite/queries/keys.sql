-- name: KeyringVersions :many
SELECT * FROM keyring_versions ORDER BY keyring, version;

-- name: Wrappers :many
SELECT * FROM wrappers ORDER BY keyring, version, root;

-- name: AddKeyringVersion :exec
INSERT INTO keyring_versions (keyring, version, enabled, created) VALUES (?, ?, ?, ?);

-- name: PutWrapper :exec
INSERT INTO wrappers (keyring, version, root, root_version, wrapped) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (keyring, version, root) DO UPDATE SET root_version = excluded.root_version, wrapped = excluded.wrapped;

-- name: DropWrapper :exec
DELETE FROM wrappers WHERE keyring = ? AND version = ? AND root = ?;

-- name: LeaseEpoch :one
SELECT epoch FROM lease_epoch WHERE only = 1;

-- name: NextLeaseEpoch :exec
UPDATE lease_epoch SET epoch = epoch + 1 WHERE only = 1;

-- name: ServiceKeys :many
SELECT * FROM service_keys ORDER BY kind, created, id;

-- name: AddServiceKey :exec
INSERT INTO service_keys (kind, id, public, wrapped, created) VALUES (?, ?, ?, ?, ?);

-- name: DropServiceKey :exec
DELETE FROM service_keys WHERE kind = ? AND id = ?;

-- name: DropServiceKeysOfKind :exec
DELETE FROM service_keys WHERE kind = ?;
