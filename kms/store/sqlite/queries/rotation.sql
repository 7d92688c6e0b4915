-- name: Leader :one
SELECT * FROM leaders WHERE name = ?;

-- name: PutLeader :exec
INSERT INTO leaders (name, epoch, holder, renewals) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, holder = excluded.holder, renewals = excluded.renewals;

-- name: RotationPause :one
SELECT since, by, reason FROM rotation_pause WHERE only = 1;

-- name: PutRotationPause :exec
INSERT INTO rotation_pause (only, since, by, reason) VALUES (1, ?, ?, ?)
ON CONFLICT (only) DO UPDATE SET since = excluded.since, by = excluded.by, reason = excluded.reason;

-- name: DropRotationPause :exec
DELETE FROM rotation_pause WHERE only = 1;

-- name: RotationRun :one
SELECT * FROM rotation_runs WHERE id = ?;

-- name: RotationRuns :many
SELECT * FROM rotation_runs ORDER BY num DESC LIMIT sqlc.arg(most);

-- name: PutRotationRun :exec
INSERT INTO rotation_runs (id, why, by, epoch, started, ended, outcome, done, refused, failed, failures)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, outcome = excluded.outcome, done = excluded.done, refused = excluded.refused,
  failed = excluded.failed, failures = excluded.failures;

-- name: PruneRotationRuns :exec
DELETE FROM rotation_runs WHERE rotation_runs.num <= (SELECT max(newest.num) FROM rotation_runs AS newest) - sqlc.arg(kept);
