-- name: GetMachine :one
SELECT * FROM whole_machines WHERE id = ?;

-- All that a boot's decision reads of single rows, in one statement: of the
-- measurement and the platform set, empty columns where there is none.

-- name: LoadMachine :one
SELECT sqlc.embed(m),
  (SELECT count(*) FROM platforms WHERE platforms.machine = m.id AND NOT platforms.approved) AS platforms,
  (SELECT count(*) FROM measurements WHERE measurements.machine = m.id AND measurements.status = 'seen') AS seen,
  (SELECT count(*) FROM redemptions WHERE redemptions.challenge = sqlc.narg(challenge)) AS redeemed,
  (SELECT epoch FROM lease_epoch WHERE only = 1) AS lease_epoch,
  (SELECT count(*) FROM orders WHERE orders.machine = m.id) AS orders,
  x.num IS NOT NULL AS has_measurement, coalesce(x.in_group, '') AS x_group, x.claims AS x_claims,
  coalesce(x.cmdline, '') AS x_cmdline,
  coalesce(x.status, '') AS x_status, coalesce(x.source, '') AS x_source, coalesce(x.machine, '') AS x_machine,
  coalesce(x.created, 0) AS x_created, coalesce(x.approved, 0) AS x_approved, coalesce(x.approved_by, '') AS x_approved_by,
  p.num IS NOT NULL AS has_platform, p.claims AS p_claims, coalesce(p.approved, 0) AS p_approved,
  coalesce(p.created, 0) AS p_created, coalesce(p.expires, 0) AS p_expires
FROM whole_machines AS m
LEFT JOIN measurements AS x ON x.digest = sqlc.narg(measurement) AND x.in_group = coalesce(sqlc.narg(in_group), m.in_group)
LEFT JOIN platforms AS p ON p.machine = m.id AND p.digest = sqlc.narg(platform)
WHERE m.id = sqlc.arg(id);

-- name: MachineByAKName :one
SELECT id FROM machines WHERE ak_name = ?;

-- name: MachineByName :one
SELECT id FROM machines WHERE name = ? AND name <> '';

-- name: PutMachine :one
INSERT INTO machines (id, name, proposed, in_group, status, committed, ek, ek_cert, ak, ak_name, trust,
  created, approved, approved_by)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, proposed = excluded.proposed, in_group = excluded.in_group,
  status = excluded.status, committed = excluded.committed, ek = excluded.ek, ek_cert = excluded.ek_cert,
  ak = excluded.ak, ak_name = excluded.ak_name, trust = excluded.trust, created = excluded.created,
  approved = excluded.approved, approved_by = excluded.approved_by
RETURNING num;

-- name: DropMachineState :exec
DELETE FROM machine_states WHERE machine = (SELECT num FROM machines WHERE id = ?);

-- name: DropMachine :exec
DELETE FROM machines WHERE id = ?;

-- name: PutMachineState :exec
INSERT INTO machine_states (machine, tier, measurement, expected, expected_platform, platform, release_id, opened, announced, fault, unforeseen,
  reset_count, restart_count, clock, safe, releases, regressed, readmit_until, restore_until, reenroll_until, last_release,
  last_refusal, floors, pins)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (machine) DO UPDATE SET tier = excluded.tier, measurement = excluded.measurement,
  expected = excluded.expected, expected_platform = excluded.expected_platform,
  platform = excluded.platform, release_id = excluded.release_id, opened = excluded.opened, announced = excluded.announced, fault = excluded.fault,
  unforeseen = excluded.unforeseen,
  reset_count = excluded.reset_count, restart_count = excluded.restart_count, clock = excluded.clock, safe = excluded.safe, releases = excluded.releases,
  regressed = excluded.regressed, readmit_until = excluded.readmit_until, restore_until = excluded.restore_until,
  reenroll_until = excluded.reenroll_until, last_release = excluded.last_release, last_refusal = excluded.last_refusal,
  floors = excluded.floors, pins = excluded.pins;
