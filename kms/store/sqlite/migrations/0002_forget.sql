-- Machines that nobody approved are forgotten, with what was seen on them; and
-- approved measurements are found apart from those that were only seen.

-- +goose Up

CREATE INDEX measurements_approved ON measurements (in_group) WHERE status = 'approved';

-- +goose StatementBegin
CREATE TRIGGER machines_dropped AFTER DELETE ON machines BEGIN
  UPDATE counts SET n = n - 1 WHERE kind = 'machine' AND status = old.status;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER measurements_dropped AFTER DELETE ON measurements BEGIN
  UPDATE counts SET n = n - 1 WHERE kind = 'measurement' AND status = old.status;
END;
-- +goose StatementEnd

PRAGMA user_version = 2;
