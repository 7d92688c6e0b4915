-- name: MachinesByName :many
SELECT * FROM whole_machines WHERE name = ? AND name <> '';

-- name: MachinesByProposedName :many
SELECT * FROM whole_machines WHERE proposed = ? AND name = '' ORDER BY id LIMIT ?;

-- name: MachinesBetween :many
SELECT * FROM whole_machines WHERE id >= sqlc.arg(low) AND id < sqlc.arg(beyond) ORDER BY id LIMIT sqlc.arg(most);

-- name: ListMachines :many
SELECT * FROM whole_machines WHERE id > ? ORDER BY id LIMIT ?;

-- name: ListMachinesByStatus :many
SELECT * FROM whole_machines WHERE status = ? AND id > ? ORDER BY id LIMIT ?;

-- name: ListMachinesByGroup :many
SELECT * FROM whole_machines WHERE in_group = ? AND id > ? ORDER BY id LIMIT ?;

-- name: ListMachinesByStatusAndGroup :many
SELECT * FROM whole_machines WHERE status = ? AND in_group = ? AND id > ? ORDER BY id LIMIT ?;

-- name: AnnouncementOf :one
SELECT coalesce(x.status, '') AS measurement, p.num IS NOT NULL AS has_platform, coalesce(p.approved, 0) AS approved,
  coalesce(p.created, 0) AS created, coalesce(p.expires, 0) AS expires
FROM machines AS m JOIN machine_states AS s ON s.machine = m.num
LEFT JOIN measurements AS x ON x.digest = s.expected AND x.in_group = m.in_group
LEFT JOIN platforms AS p ON p.machine = m.id AND p.digest = s.expected_platform
WHERE m.id = ?;

-- name: Counts :many
SELECT kind, status, n FROM counts;
