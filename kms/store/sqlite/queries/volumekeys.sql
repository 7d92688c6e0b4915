-- A page of volumes is read by these three, in one snapshot.

-- name: VolumesWithMachines :many
SELECT volumes.id, volumes.machine, volumes.status, volumes.keyring, volumes.created, volumes.reencrypted, volumes.size, volumes.wrapped_before,
  machines.name, machines.in_group, machines.status AS machine_status, coalesce(machine_states.last_release, 0) AS last_release,
  coalesce(machine_states.restore_until, 0) AS restore_until
FROM volumes JOIN machines ON machines.id = volumes.machine LEFT JOIN machine_states ON machine_states.machine = machines.num
WHERE volumes.id > sqlc.arg(after) ORDER BY volumes.id LIMIT sqlc.arg(most);

-- name: SecretsBetween :many
SELECT volume, purpose, version, status, created, replaced, at_boot, keyring, wrapped_first, wrapped_last, wrapped_before
FROM secrets WHERE volume > sqlc.arg(after) AND volume <= sqlc.arg(last) ORDER BY volume, purpose, version;

-- name: OrdersBetween :many
SELECT * FROM orders WHERE volume > sqlc.arg(after) AND volume <= sqlc.arg(last) ORDER BY volume;

-- The volumes of a list are read by these three likewise.

-- name: VolumesWithMachinesOf :many
SELECT volumes.id, volumes.machine, volumes.status, volumes.keyring, volumes.created, volumes.reencrypted, volumes.size, volumes.wrapped_before,
  machines.name, machines.in_group, machines.status AS machine_status, coalesce(machine_states.last_release, 0) AS last_release,
  coalesce(machine_states.restore_until, 0) AS restore_until
FROM volumes JOIN machines ON machines.id = volumes.machine LEFT JOIN machine_states ON machine_states.machine = machines.num
WHERE volumes.id IN (sqlc.slice(ids)) ORDER BY volumes.id;

-- name: SecretsOfVolumes :many
SELECT volume, purpose, version, status, created, replaced, at_boot, keyring, wrapped_first, wrapped_last, wrapped_before
FROM secrets WHERE volume IN (sqlc.slice(ids)) ORDER BY volume, purpose, version;

-- name: OrdersOfVolumes :many
SELECT * FROM orders WHERE volume IN (sqlc.slice(ids)) ORDER BY volume;

-- name: VolumesToPlan :many
SELECT s.volume FROM secrets AS s WHERE s.purpose = 'luks-keyslot' AND s.status = 'current' AND s.created <= sqlc.arg(made)
UNION ALL
SELECT n.volume FROM secrets AS n WHERE n.purpose = 'luks-keyslot' AND n.status = 'current' AND n.created > sqlc.arg(begun)
UNION ALL
SELECT r.volume FROM secrets AS r WHERE r.purpose = 'luks-keyslot' AND r.status = 'restore-only' AND r.replaced <= sqlc.arg(replaced)
UNION ALL
SELECT o.volume FROM orders AS o
LIMIT sqlc.arg(most);
