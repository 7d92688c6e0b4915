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
INSERT INTO keyring_uses (keyring, version, first) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- name: KeyringUses :many
SELECT * FROM keyring_uses ORDER BY keyring, version;
