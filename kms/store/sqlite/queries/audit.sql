-- name: AddEntry :exec
INSERT INTO entries (signed, machine, action, time) VALUES (?, ?, ?, ?);

-- name: LastEntry :one
SELECT CAST(coalesce(max(seq), 0) AS INTEGER) FROM entries;

-- name: EntriesAfter :many
SELECT * FROM entries WHERE seq > sqlc.arg(after) ORDER BY seq LIMIT sqlc.arg(most);

-- name: LatestEntries :many
SELECT * FROM entries ORDER BY seq DESC LIMIT ?;

-- name: LatestEntriesOfMachine :many
SELECT * FROM entries WHERE machine = ? AND machine <> '' ORDER BY seq DESC LIMIT ?;

-- name: LatestEntriesOfAction :many
SELECT * FROM entries WHERE action = ? ORDER BY seq DESC LIMIT ?;

-- The plus keeps SQLite from going through all entries of the action.
-- name: LatestEntriesOfMachineAndAction :many
SELECT * FROM entries WHERE machine = ? AND machine <> '' AND +action = ? ORDER BY seq DESC LIMIT ?;

-- name: TreeHash :one
SELECT hash FROM tree_hashes WHERE place = ?;

-- name: AddTreeHash :exec
INSERT INTO tree_hashes (place, hash) VALUES (?, ?);

-- name: Head :one
SELECT size, head FROM tree_head;

-- name: MoveHead :execrows
UPDATE tree_head SET size = sqlc.arg(size), head = sqlc.arg(head) WHERE size = sqlc.arg(before);

-- name: Redeemed :one
SELECT count(*) FROM redemptions WHERE challenge = ?;

-- name: Redeem :exec
INSERT INTO redemptions (challenge, keep_until) VALUES (?, ?);

-- name: PruneRedemptions :exec
DELETE FROM redemptions WHERE challenge IN (
  SELECT r.challenge FROM redemptions AS r WHERE r.keep_until < sqlc.arg(now) ORDER BY r.keep_until LIMIT sqlc.arg(most));
