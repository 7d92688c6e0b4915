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
UPDATE secrets SET keyring = sqlc.arg(keyring), keyring_version = sqlc.arg(keyring_version), wrapped = sqlc.arg(wrapped)
WHERE volume = sqlc.arg(volume) AND purpose = sqlc.arg(purpose) AND version = sqlc.arg(version) AND wrapped = sqlc.arg(was);

-- name: AddKeyringUse :exec
INSERT INTO keyring_uses (keyring, version, first) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- name: KeyringUses :many
SELECT * FROM keyring_uses ORDER BY keyring, version;
