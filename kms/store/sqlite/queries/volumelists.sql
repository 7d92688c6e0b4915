-- name: ListVolumes :many
SELECT * FROM volumes WHERE id > ? ORDER BY id LIMIT ?;

-- name: ListVolumesOfMachine :many
SELECT * FROM volumes WHERE machine = ? AND id > ? ORDER BY id LIMIT ?;

-- name: ListForeignVolumes :many
SELECT * FROM volumes WHERE has_foreign = 1 AND id > ? ORDER BY id LIMIT ?;

-- name: ListCopiedVolumes :many
SELECT * FROM volumes WHERE copied = 1 AND id > ? ORDER BY id LIMIT ?;

-- name: VolumesBetween :many
SELECT * FROM volumes WHERE id >= sqlc.arg(low) AND id < sqlc.arg(beyond) ORDER BY id LIMIT sqlc.arg(most);

-- name: VolumesByUUID :many
SELECT * FROM volumes WHERE uuid = sqlc.arg(uuid) AND status <> 'former' ORDER BY machine LIMIT sqlc.arg(most);

-- name: VolumesWithKey :many
SELECT * FROM volumes WHERE volume_key_digest = ? AND machine <> ? ORDER BY id LIMIT ?;

-- name: SecretsOfVolume :many
SELECT * FROM secrets WHERE volume = ? ORDER BY purpose, version;
