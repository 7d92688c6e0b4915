-- name: ListMachines :many
SELECT * FROM whole_machines WHERE id > ? ORDER BY id LIMIT ?;

-- name: ListMachinesByStatus :many
SELECT * FROM whole_machines WHERE status = ? AND id > ? ORDER BY id LIMIT ?;

-- name: ListMachinesByGroup :many
SELECT * FROM whole_machines WHERE in_group = ? AND id > ? ORDER BY id LIMIT ?;

-- name: ListMachinesByStatusAndGroup :many
SELECT * FROM whole_machines WHERE status = ? AND in_group = ? AND id > ? ORDER BY id LIMIT ?;
