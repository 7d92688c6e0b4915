-- name: GetMeasurement :one
SELECT * FROM measurements WHERE digest = ? AND in_group = ?;

-- name: PutMeasurement :exec
INSERT INTO measurements (digest, in_group, claims, cmdline, status, source, machine, created, approved, approved_by)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (digest, in_group) DO UPDATE SET claims = excluded.claims, cmdline = excluded.cmdline,
  status = excluded.status,
  source = excluded.source, machine = excluded.machine, created = excluded.created, approved = excluded.approved,
  approved_by = excluded.approved_by;

-- name: ListMeasurements :many
SELECT * FROM measurements
WHERE measurements.digest > sqlc.arg(after) AND measurements.digest <= coalesce(
  (SELECT m.digest FROM measurements AS m WHERE m.digest > sqlc.arg(after)
   ORDER BY m.digest, m.in_group LIMIT 1 OFFSET sqlc.arg(skip)),
  (SELECT max(m.digest) FROM measurements AS m))
ORDER BY measurements.digest, measurements.in_group;

-- name: ListMeasurementsOfGroup :many
SELECT * FROM measurements WHERE in_group = ? AND digest > ? ORDER BY digest LIMIT ?;

-- name: ApprovedMeasurementsOfGroup :many
SELECT * FROM measurements WHERE in_group = ? AND status = 'approved' ORDER BY num DESC LIMIT ?;

-- name: DropMeasurementsSeenOn :exec
DELETE FROM measurements WHERE machine = ? AND status = 'seen';

-- name: DropMeasurement :exec
DELETE FROM measurements WHERE digest = ? AND in_group = ?;

-- name: PredictedFor :many
SELECT * FROM measurements WHERE machine = ? AND status = 'seen' AND source = 'predicted' ORDER BY num;

-- name: FindMeasurements :many
SELECT * FROM measurements WHERE digest >= sqlc.arg(low) AND digest <= sqlc.arg(high)
ORDER BY digest, in_group LIMIT sqlc.arg(most);

-- name: PutPlatform :exec
INSERT INTO platforms (machine, digest, claims, approved, created, expires) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (machine, digest) DO UPDATE SET claims = excluded.claims, approved = excluded.approved,
  created = excluded.created, expires = excluded.expires;

-- name: DropPlatform :exec
DELETE FROM platforms WHERE machine = ? AND digest = ?;

-- name: DropPlatformsOfMachine :exec
DELETE FROM platforms WHERE machine = ?;

-- name: PlatformsOfMachine :many
SELECT * FROM platforms WHERE machine = ? ORDER BY created DESC, num DESC;
