-- name: KeyringVersions :many
SELECT * FROM keyring_versions ORDER BY keyring, version;

-- name: Wrappers :many
SELECT * FROM wrappers ORDER BY keyring, version, root;

-- name: AddKeyringVersion :exec
INSERT INTO keyring_versions (keyring, version, status, created, changed, changed_by, destroy_at)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: VersionsOfKeyring :many
SELECT * FROM keyring_versions WHERE keyring = ? ORDER BY version;

-- name: ChangeKeyringVersion :execrows
UPDATE keyring_versions SET status = ?, changed = ?, changed_by = ?, destroy_at = ? WHERE keyring = ? AND version = ?;

-- name: DropWrappers :exec
DELETE FROM wrappers WHERE keyring = ? AND version = ?;

-- name: AllDependents :many
SELECT * FROM dependents WHERE n > 0 ORDER BY keyring, version, kind, purpose, status;

-- name: DependentsOfKeyring :many
SELECT * FROM dependents WHERE keyring = ? AND n > 0 ORDER BY version, kind, purpose, status;

-- name: SecretsOfVersion :many
SELECT sqlc.embed(secrets), machines.id AS machine, machines.ek, machines.ak
FROM secrets JOIN volumes ON volumes.id = secrets.volume JOIN machines ON machines.id = volumes.machine
WHERE secrets.keyring = sqlc.arg(keyring) AND secrets.keyring_version = sqlc.arg(keyring_version)
  AND (secrets.volume, secrets.purpose, secrets.version) > (sqlc.arg(volume), sqlc.arg(purpose), CAST(sqlc.arg(version) AS INTEGER))
ORDER BY secrets.volume, secrets.purpose, secrets.version LIMIT sqlc.arg(most);

-- name: GetSecret :one
SELECT * FROM secrets WHERE volume = ? AND purpose = ? AND version = ?;

-- name: MoveServiceKey :execrows
UPDATE service_keys SET wrapped = ?, keyring_version = ? WHERE kind = ? AND id = ?;

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
INSERT INTO service_keys (kind, id, public, keyring_version, wrapped, created) VALUES (?, ?, ?, ?, ?, ?);

-- name: DropServiceKey :exec
DELETE FROM service_keys WHERE kind = ? AND id = ?;

-- name: DropServiceKeysOfKind :exec
DELETE FROM service_keys WHERE kind = ?;
