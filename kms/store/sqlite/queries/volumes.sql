-- A row for each secret, or one with version 0 for a volume without.

-- name: VolumesAndSecrets :many
SELECT sqlc.embed(volumes), coalesce(s.version, 0) AS version, coalesce(s.purpose, '') AS purpose,
  coalesce(s.status, '') AS status, coalesce(s.keyring, '') AS keyring, coalesce(s.keyring_version, 0) AS keyring_version,
  coalesce(s.wrapped, '') AS wrapped, coalesce(s.created, 0) AS created, coalesce(s.replaced, 0) AS replaced,
  coalesce(s.at_boot, 0) AS at_boot, coalesce(s.disclosed, 0) AS disclosed, coalesce(s.age_copy, '') AS age_copy
FROM volumes LEFT JOIN secrets AS s ON s.volume = volumes.id
WHERE volumes.machine = ? ORDER BY volumes.id, s.purpose, s.version;

-- What a boot asks for: as above, of one purpose, without what only people want.

-- name: VolumesAndSecretsFor :many
SELECT sqlc.embed(volumes), coalesce(s.version, 0) AS version, coalesce(s.purpose, '') AS purpose,
  coalesce(s.status, '') AS status, coalesce(s.keyring, '') AS keyring, coalesce(s.keyring_version, 0) AS keyring_version,
  coalesce(s.wrapped, '') AS wrapped, coalesce(s.created, 0) AS created, coalesce(s.replaced, 0) AS replaced,
  coalesce(s.at_boot, 0) AS at_boot
FROM volumes LEFT JOIN secrets AS s ON s.volume = volumes.id AND s.purpose IN (sqlc.arg(purpose), sqlc.arg(other))
WHERE volumes.machine = sqlc.arg(machine) ORDER BY volumes.id, s.purpose, s.version;

-- name: PutVolume :exec
INSERT INTO volumes (id, machine, uuid, status, identity, volume_key_digest, inventory, size, accepted, has_foreign, copied,
  resume, keyring, created, reencrypted)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET machine = excluded.machine, uuid = excluded.uuid, status = excluded.status,
  identity = excluded.identity, volume_key_digest = excluded.volume_key_digest, inventory = excluded.inventory,
  size = excluded.size, accepted = excluded.accepted, has_foreign = excluded.has_foreign, copied = excluded.copied, resume = excluded.resume, keyring = excluded.keyring, created = excluded.created,
  reencrypted = excluded.reencrypted;

-- name: DropVolume :exec
DELETE FROM volumes WHERE id = ?;

-- name: DropVolumesOfMachine :exec
DELETE FROM volumes WHERE machine = ?;

-- name: PutSecret :exec
INSERT INTO secrets (volume, purpose, version, status, keyring, keyring_version, wrapped_first, wrapped_last, wrapped_before, wrapped, created,
  replaced, at_boot, disclosed, age_copy)
VALUES (sqlc.arg(volume), sqlc.arg(purpose), sqlc.arg(version), sqlc.arg(status), sqlc.arg(keyring), sqlc.arg(keyring_version), sqlc.arg(keyring_version),
  sqlc.arg(keyring_version), '', sqlc.arg(wrapped), sqlc.arg(created), sqlc.arg(replaced), sqlc.arg(at_boot), sqlc.arg(disclosed), sqlc.arg(age_copy))
ON CONFLICT (volume, purpose, version) DO UPDATE SET status = excluded.status,
  keyring = excluded.keyring, keyring_version = excluded.keyring_version, wrapped = excluded.wrapped,
  wrapped_first = min(wrapped_first, excluded.keyring_version), wrapped_last = max(wrapped_last, excluded.keyring_version),
  created = excluded.created, replaced = excluded.replaced, at_boot = excluded.at_boot, disclosed = excluded.disclosed, age_copy = excluded.age_copy;
