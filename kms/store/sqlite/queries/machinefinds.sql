-- name: MachinesByName :many
SELECT * FROM whole_machines WHERE name = ? AND name <> '';

-- name: MachinesByProposedName :many
SELECT * FROM whole_machines WHERE proposed = ? AND name = '' ORDER BY id LIMIT ?;

-- name: MachinesBetween :many
SELECT * FROM whole_machines WHERE id >= sqlc.arg(low) AND id < sqlc.arg(beyond) ORDER BY id LIMIT sqlc.arg(most);
