-- name: OrdersOfMachine :many
SELECT * FROM orders WHERE machine = ? ORDER BY volume;

-- name: Orders :many
SELECT * FROM orders WHERE volume > sqlc.arg(after) ORDER BY volume LIMIT sqlc.arg(most);

-- name: PutOrder :exec
INSERT INTO orders (volume, machine, kind, status, at_boot, opens, version, withdrawn, reason, created, created_by, deliveries, delivered, fault, faults, reported,
  header, lost, agreed, becomes, bytes_done, bytes_all, rate, time_left, progressed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (volume) DO UPDATE SET machine = excluded.machine, kind = excluded.kind, status = excluded.status, at_boot = excluded.at_boot,
  opens = excluded.opens, version = excluded.version, withdrawn = excluded.withdrawn, reason = excluded.reason, created = excluded.created, created_by = excluded.created_by,
  deliveries = excluded.deliveries, delivered = excluded.delivered, fault = excluded.fault, faults = excluded.faults,
  reported = excluded.reported, header = excluded.header, lost = excluded.lost, agreed = excluded.agreed, becomes = excluded.becomes,
  bytes_done = excluded.bytes_done, bytes_all = excluded.bytes_all, rate = excluded.rate, time_left = excluded.time_left,
  progressed = excluded.progressed;

-- name: DropOrder :exec
DELETE FROM orders WHERE volume = ?;

-- name: PutHeaderCopy :exec
INSERT INTO header_copies (volume, purpose, version, created, sealed) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (volume) DO UPDATE SET purpose = excluded.purpose, version = excluded.version, created = excluded.created, sealed = excluded.sealed;

-- name: HeaderCopyOf :one
SELECT * FROM header_copies WHERE volume = ?;

-- name: DropSecret :exec
DELETE FROM secrets WHERE volume = ? AND purpose = ? AND version = ?;
