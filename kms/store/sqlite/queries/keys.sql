-- name: ServiceKeys :many
SELECT * FROM service_keys ORDER BY kind, created, id;

-- name: AddServiceKey :exec
INSERT INTO service_keys (kind, id, public, keyring_version, wrapped, created) VALUES (?, ?, ?, ?, ?, ?);

-- name: MoveServiceKey :execrows
UPDATE service_keys SET wrapped = ?, keyring_version = ? WHERE kind = ? AND id = ?;

-- name: DropServiceKey :exec
DELETE FROM service_keys WHERE kind = ? AND id = ?;

-- name: DropServiceKeysOfKind :exec
DELETE FROM service_keys WHERE kind = ?;
