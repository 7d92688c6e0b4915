-- A page of volumes is read by these three, in one snapshot.

-- name: VolumesWithMachines :many
SELECT volumes.id, volumes.machine, volumes.status, volumes.keyring, volumes.created, volumes.reencrypted, volumes.wrapped_before,
  machines.name, machines.in_group, machines.status AS machine_status, coalesce(machine_states.last_release, 0) AS last_release
FROM volumes JOIN machines ON machines.id = volumes.machine LEFT JOIN machine_states ON machine_states.machine = machines.num
WHERE volumes.id > sqlc.arg(after) ORDER BY volumes.id LIMIT sqlc.arg(most);

-- name: SecretsBetween :many
SELECT volume, purpose, version, status, created, replaced, at_boot, keyring, wrapped_first, wrapped_last, wrapped_before
FROM secrets WHERE volume > sqlc.arg(after) AND volume <= sqlc.arg(last) ORDER BY volume, purpose, version;

-- name: OrdersBetween :many
SELECT * FROM orders WHERE volume > sqlc.arg(after) AND volume <= sqlc.arg(last) ORDER BY volume;
