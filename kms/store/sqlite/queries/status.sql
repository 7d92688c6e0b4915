-- name: AnnouncementOf :one
SELECT coalesce(x.status, '') AS measurement, p.num IS NOT NULL AS has_platform, coalesce(p.approved, 0) AS approved,
  coalesce(p.created, 0) AS created, coalesce(p.expires, 0) AS expires
FROM machines AS m JOIN machine_states AS s ON s.machine = m.num
LEFT JOIN measurements AS x ON x.digest = s.expected AND x.in_group = m.in_group
LEFT JOIN platforms AS p ON p.machine = m.id AND p.digest = s.expected_platform
WHERE m.id = ?;

-- When what opens a volume last changed.
-- name: LastSecret :one
SELECT CAST(max(
  coalesce((SELECT max(created) FROM secrets WHERE purpose = 'luks-keyslot' AND status = 'current'), 0),
  coalesce((SELECT max(replaced) FROM secrets WHERE status = 'restore-only'), 0)) AS INTEGER) AS changed;

-- name: Counts :many
SELECT kind, status, n FROM counts;
