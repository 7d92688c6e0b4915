-- name: MeasurementGroups :many
SELECT DISTINCT in_group FROM measurements WHERE status = 'approved' ORDER BY in_group;

-- name: OldestApproved :many
SELECT * FROM measurements WHERE in_group = ? AND status = 'approved' ORDER BY approved, num LIMIT ?;

-- What keeps a measurement from being retired: machines whose last good boots were
-- not all of measurements that were approved later. All machines of the group are
-- looked at, until there are enough.

-- name: HoldingMachines :many
SELECT m.id FROM machines AS m JOIN machine_states AS s ON s.machine = m.num
WHERE m.in_group = sqlc.arg(in_group) AND m.status = 'active' AND (
  s.measurement = CAST(sqlc.arg(digest) AS BLOB) OR s.expected = CAST(sqlc.arg(digest) AS BLOB)
  OR coalesce(length(s.floors), 0) < CAST(sqlc.arg(until) AS INTEGER) OR substr(s.floors, CAST(sqlc.arg(until) AS INTEGER) - 7, 8) <= CAST(sqlc.arg(approved) AS BLOB))
ORDER BY m.id LIMIT sqlc.arg(most);

-- name: HasActiveMachine :one
SELECT EXISTS (SELECT 1 FROM machines WHERE in_group = ? AND status = 'active');

-- Machines that do not pin a service key; all are looked at, until there are
-- enough.

-- name: MachinesLacking :many
SELECT m.id FROM machines AS m JOIN machine_states AS s ON s.machine = m.num
WHERE m.status <> 'revoked' AND m.id > sqlc.arg(after) AND instr(coalesce(s.pins, x''), CAST(sqlc.arg(pin) AS BLOB)) = 0
ORDER BY m.id LIMIT sqlc.arg(most);

-- name: CountPins :many
SELECT s.pins, count(*) AS n FROM machines AS m JOIN machine_states AS s ON s.machine = m.num
WHERE m.status <> 'revoked' GROUP BY s.pins;
