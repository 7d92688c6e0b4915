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

-- name: MoveSecret :execrows
UPDATE secrets SET keyring = sqlc.arg(keyring), keyring_version = sqlc.arg(keyring_version), wrapped = sqlc.arg(wrapped),
  wrapped_first = min(wrapped_first, sqlc.arg(keyring_version)), wrapped_last = max(wrapped_last, sqlc.arg(keyring_version))
WHERE volume = sqlc.arg(volume) AND purpose = sqlc.arg(purpose) AND version = sqlc.arg(version) AND wrapped = sqlc.arg(was);

-- name: AddKeyringUse :exec
INSERT INTO keyring_uses (keyring, version, first, last, wraps, unwraps, dismissed, dismissed_by) VALUES (?, ?, ?, ?, ?, ?, 0, '') ON CONFLICT DO UPDATE
SET last = max(last, excluded.last), wraps = wraps + excluded.wraps, unwraps = unwraps + excluded.unwraps, dismissed = 0, dismissed_by = '';

-- name: DismissKeyringUse :execrows
UPDATE keyring_uses SET dismissed = sqlc.arg(dismissed), dismissed_by = sqlc.arg(dismissed_by)
WHERE keyring = sqlc.arg(keyring) AND version = sqlc.arg(version);

-- name: UsesOfKeyring :many
SELECT * FROM keyring_uses WHERE keyring = ? ORDER BY version;

-- name: KeyringUses :many
SELECT * FROM keyring_uses ORDER BY keyring, version;
