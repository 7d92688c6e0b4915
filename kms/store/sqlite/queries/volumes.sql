-- A row for each secret, or one with version 0 for a volume without.
-- name: VolumesAndSecrets :many
SELECT sqlc.embed(volumes), coalesce(s.version, 0) AS version, coalesce(s.purpose, '') AS purpose,
  coalesce(s.status, '') AS status, coalesce(s.keyring, '') AS keyring, coalesce(s.keyring_version, 0) AS keyring_version,
  coalesce(s.wrapped, '') AS wrapped, coalesce(s.created, 0) AS created
FROM volumes LEFT JOIN secrets AS s ON s.volume = volumes.id
WHERE volumes.machine = ? ORDER BY volumes.id, s.version;

-- name: PutVolume :exec
INSERT INTO volumes (id, machine, uuid, status, identity, volume_key_digest, inventory, accepted, has_foreign, copied,
  resume, keyring, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET machine = excluded.machine, uuid = excluded.uuid, status = excluded.status,
  identity = excluded.identity, volume_key_digest = excluded.volume_key_digest, inventory = excluded.inventory,
  accepted = excluded.accepted, has_foreign = excluded.has_foreign, copied = excluded.copied, resume = excluded.resume, keyring = excluded.keyring, created = excluded.created;

-- name: DropVolume :exec
DELETE FROM volumes WHERE id = ?;

-- name: DropVolumesOfMachine :exec
DELETE FROM volumes WHERE machine = ?;

-- name: PutSecret :exec
INSERT INTO secrets (volume, version, purpose, status, keyring, keyring_version, wrapped, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (volume, version) DO UPDATE SET purpose = excluded.purpose, status = excluded.status,
  keyring = excluded.keyring, keyring_version = excluded.keyring_version, wrapped = excluded.wrapped,
  created = excluded.created;

-- name: ListVolumes :many
SELECT * FROM volumes WHERE id > ? ORDER BY id LIMIT ?;

-- name: ListVolumesOfMachine :many
SELECT * FROM volumes WHERE machine = ? AND id > ? ORDER BY id LIMIT ?;

-- name: ListForeignVolumes :many
SELECT * FROM volumes WHERE has_foreign = 1 AND id > ? ORDER BY id LIMIT ?;

-- name: ListCopiedVolumes :many
SELECT * FROM volumes WHERE copied = 1 AND id > ? ORDER BY id LIMIT ?;

-- name: VolumesWithKey :many
SELECT * FROM volumes WHERE volume_key_digest = ? AND machine <> ? ORDER BY id LIMIT ?;

-- name: SecretsOfVolume :many
SELECT * FROM secrets WHERE volume = ? ORDER BY version;
