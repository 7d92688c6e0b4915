-- name: KeyringVersions :many
SELECT * FROM keyring_versions ORDER BY keyring, version;

-- name: Wrappers :many
SELECT * FROM wrappers ORDER BY keyring, version, place;

-- name: AddKeyringVersion :exec
INSERT INTO keyring_versions (keyring, version, enabled, created) VALUES (?, ?, ?, ?);

-- name: AddWrapper :exec
INSERT INTO wrappers (keyring, version, place, root, wrapped) VALUES (?, ?, ?, ?, ?);

-- name: ServiceKeys :many
SELECT * FROM service_keys ORDER BY kind, created, id;

-- name: AddServiceKey :exec
INSERT INTO service_keys (kind, id, public, wrapped, created) VALUES (?, ?, ?, ?, ?);

-- name: DropServiceKey :exec
DELETE FROM service_keys WHERE kind = ? AND id = ?;

-- name: DropServiceKeysOfKind :exec
DELETE FROM service_keys WHERE kind = ?;

-- name: AddKeyringUse :exec
INSERT INTO keyring_uses (keyring, version, first) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- name: KeyringUses :many
SELECT * FROM keyring_uses ORDER BY keyring, version;
