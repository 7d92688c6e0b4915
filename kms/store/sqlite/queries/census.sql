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
