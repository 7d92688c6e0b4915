-- docs/formats/store.md says what each table is for, how it grows and what its
-- queries cost. Times are microseconds since 1970 in UTC, 0 where there is none.

-- +goose Up

CREATE TABLE machines (
  num         INTEGER PRIMARY KEY,
  id          TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  proposed    TEXT    NOT NULL,
  in_group    TEXT    NOT NULL,
  status      TEXT    NOT NULL,
  committed   INTEGER NOT NULL,
  ek          BLOB,
  ek_cert     BLOB,
  ak          BLOB,
  ak_name     BLOB    NOT NULL,
  trust       TEXT    NOT NULL,
  created     INTEGER NOT NULL,
  approved    INTEGER NOT NULL,
  approved_by TEXT    NOT NULL
) STRICT;

CREATE UNIQUE INDEX machines_id       ON machines (id);
CREATE UNIQUE INDEX machines_ak_name  ON machines (ak_name);
CREATE UNIQUE INDEX machines_name     ON machines (name) WHERE name <> '';
CREATE        INDEX machines_proposed ON machines (proposed, id) WHERE name = '';
CREATE        INDEX machines_status   ON machines (status, id);
CREATE        INDEX machines_group    ON machines (in_group, id);
CREATE        INDEX machines_both     ON machines (in_group, status, id);

-- What a release changes of a machine, apart from what it does not, so that a
-- release rewrites 200 bytes and not 2 KB.
CREATE TABLE machine_states (
  machine           INTEGER PRIMARY KEY REFERENCES machines (num),
  tier              TEXT    NOT NULL,
  measurement       BLOB,
  expected          BLOB,
  expected_platform BLOB,
  platform          BLOB,
  release_id        BLOB,
  opened            TEXT    NOT NULL, -- ids of volumes, with spaces between
  announced         INTEGER NOT NULL,
  fault             TEXT    NOT NULL,
  unforeseen        INTEGER NOT NULL,
  reset_count       INTEGER NOT NULL,
  restart_count     INTEGER NOT NULL,
  clock             INTEGER NOT NULL, -- the 64 bits of an unsigned number
  safe              INTEGER NOT NULL,
  releases          TEXT    NOT NULL, -- JSON array of TPM clocks
  regressed         INTEGER NOT NULL,
  readmit_until     INTEGER NOT NULL,
  restore_until     INTEGER NOT NULL,
  reenroll_until    INTEGER NOT NULL,
  last_release      INTEGER NOT NULL,
  last_refusal      INTEGER NOT NULL,
  floors            BLOB,    -- times of 8 bytes, big-endian: see kms.Machine.Floors
  pins              BLOB     -- fingerprints of 32 bytes
) STRICT;

CREATE VIEW whole_machines AS
SELECT machines.num, machines.id, machines.name, machines.proposed, machines.in_group, machines.status,
  machines.committed, machines.ek, machines.ek_cert, machines.ak, machines.ak_name, machines.trust,
  machines.created, machines.approved, machines.approved_by,
  machine_states.tier, machine_states.measurement, machine_states.expected, machine_states.expected_platform,
  machine_states.platform, machine_states.release_id, machine_states.opened, machine_states.announced, machine_states.fault,
  machine_states.unforeseen,
  machine_states.reset_count, machine_states.restart_count, machine_states.clock,
  machine_states.safe, machine_states.releases, machine_states.regressed, machine_states.readmit_until,
  machine_states.restore_until, machine_states.reenroll_until, machine_states.last_release, machine_states.last_refusal,
  machine_states.floors, machine_states.pins
FROM machines JOIN machine_states ON machine_states.machine = machines.num;

-- By machine, so that a release finds all of them in one place.
CREATE TABLE volumes (
  machine           TEXT    NOT NULL REFERENCES machines (id),
  id                TEXT    NOT NULL,
  uuid              TEXT    NOT NULL,
  status            TEXT    NOT NULL,
  identity          BLOB,
  volume_key_digest BLOB,
  inventory         BLOB,
  size              INTEGER NOT NULL, -- of the data, in bytes; 0 where nobody knows
  accepted          BLOB,
  has_foreign       INTEGER NOT NULL,
  copied            INTEGER NOT NULL,
  resume            BLOB,
  keyring           TEXT    NOT NULL,
  created           INTEGER NOT NULL,
  reencrypted       INTEGER NOT NULL, -- when the volume key was made anew last
  wrapped_before    TEXT    NOT NULL DEFAULT '', -- what wrapped secrets that are gone, as in secrets
  PRIMARY KEY (machine, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX volumes_id   ON volumes (id);
-- A disk that enrols again has a former volume beside its new one.
CREATE UNIQUE INDEX volumes_uuid ON volumes (uuid, machine) WHERE status <> 'former';
CREATE        INDEX volumes_key  ON volumes (volume_key_digest, id) WHERE volume_key_digest IS NOT NULL;
-- Those with an open alarm, which are few.
CREATE        INDEX volumes_foreign ON volumes (id) WHERE has_foreign = 1;
CREATE        INDEX volumes_copied  ON volumes (id) WHERE copied = 1;

-- By purpose, so that a release passes by what it never delivers.
CREATE TABLE secrets (
  volume          TEXT    NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
  purpose         TEXT    NOT NULL,
  version         INTEGER NOT NULL,
  status          TEXT    NOT NULL,
  keyring         TEXT    NOT NULL,
  keyring_version INTEGER NOT NULL,
  wrapped         TEXT    NOT NULL,
  created         INTEGER NOT NULL,
  replaced        INTEGER NOT NULL,
  at_boot         INTEGER NOT NULL,
  -- From which version of its keyring to which it was ever wrapped, and of the
  -- keyrings before: NAME@FIRST-LAST, with spaces between.
  wrapped_first   INTEGER NOT NULL,
  wrapped_last    INTEGER NOT NULL,
  wrapped_before  TEXT    NOT NULL,
  disclosed       INTEGER NOT NULL,
  age_copy        TEXT    NOT NULL, -- armored; long, and so the last
  PRIMARY KEY (volume, purpose, version)
) STRICT, WITHOUT ROWID;

-- What a keyring version opens, in the order of the key.
CREATE INDEX secrets_keyring ON secrets (keyring, keyring_version, volume, purpose, version);
-- How old what opens a volume is, and how long what opened it before is kept.
CREATE INDEX secrets_created  ON secrets (created, volume)  WHERE purpose = 'luks-keyslot' AND status = 'current';
CREATE INDEX secrets_replaced ON secrets (replaced, volume) WHERE purpose = 'luks-keyslot' AND status = 'restore-only';

-- Headers of volumes from before a rekey changed them, sealed under the secret of this
-- purpose and version, with which they go: one of every order under way, a megabyte or so.
CREATE TABLE header_copies (
  volume  TEXT    PRIMARY KEY NOT NULL,
  purpose TEXT    NOT NULL,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  sealed  BLOB    NOT NULL,
  FOREIGN KEY (volume, purpose, version) REFERENCES secrets (volume, purpose, version) ON DELETE CASCADE
) STRICT;

-- Rekeys and reencryptions under way: few, whatever the number of volumes.
CREATE TABLE orders (
  volume     TEXT    PRIMARY KEY NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
  machine    TEXT    NOT NULL,
  kind       TEXT    NOT NULL,
  status     TEXT    NOT NULL,
  at_boot    INTEGER NOT NULL,
  opens      INTEGER NOT NULL, -- version that opens the disk; 0: the current one
  version    INTEGER NOT NULL,
  withdrawn  INTEGER NOT NULL, -- version that was taken back; 0: none
  reason     TEXT    NOT NULL,
  created    INTEGER NOT NULL,
  created_by TEXT    NOT NULL,
  deliveries INTEGER NOT NULL,
  delivered  INTEGER NOT NULL,
  fault      TEXT    NOT NULL,
  faults     INTEGER NOT NULL,
  reported   INTEGER NOT NULL,
  header     INTEGER NOT NULL, -- when the copy of the header was kept
  -- Of a reencryption:
  lost       TEXT    NOT NULL, -- JSON array of keyslots
  agreed     INTEGER NOT NULL, -- that they are lost
  becomes    BLOB,             -- identity digest of the header that it ends with
  bytes_done INTEGER NOT NULL,
  bytes_all  INTEGER NOT NULL,
  rate       INTEGER NOT NULL, -- bytes a second
  time_left  INTEGER NOT NULL, -- seconds
  progressed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX orders_machine ON orders (machine, volume);

CREATE TABLE measurements (
  num         INTEGER PRIMARY KEY,
  digest      BLOB    NOT NULL CHECK (length(digest) = 32),
  in_group    TEXT    NOT NULL,
  claims      BLOB,
  cmdline     TEXT    NOT NULL,
  status      TEXT    NOT NULL,
  source      TEXT    NOT NULL,
  machine     TEXT    NOT NULL,
  created     INTEGER NOT NULL,
  approved    INTEGER NOT NULL,
  approved_by TEXT    NOT NULL
) STRICT;

CREATE UNIQUE INDEX measurements_digest ON measurements (digest, in_group);
CREATE        INDEX measurements_group  ON measurements (in_group, digest);
-- Approved ones are found apart from those that were only seen.
CREATE        INDEX measurements_seen     ON measurements (machine)  WHERE status = 'seen';
CREATE        INDEX measurements_approved ON measurements (in_group) WHERE status = 'approved';

CREATE TABLE platforms (
  num      INTEGER PRIMARY KEY,
  machine  TEXT    NOT NULL REFERENCES machines (id),
  digest   BLOB    NOT NULL CHECK (length(digest) = 32),
  claims   BLOB,
  approved INTEGER NOT NULL,
  created  INTEGER NOT NULL,
  expires  INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX platforms_digest ON platforms (machine, digest);

CREATE TABLE redemptions (
  challenge  BLOB    PRIMARY KEY NOT NULL CHECK (length(challenge) = 32),
  keep_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX redemptions_keep_until ON redemptions (keep_until);

-- An entry's leaf index in the audit log's tree is seq - 1.
CREATE TABLE entries (
  seq     INTEGER PRIMARY KEY,
  signed  BLOB    NOT NULL,
  machine TEXT    NOT NULL,
  action  TEXT    NOT NULL,
  time    INTEGER NOT NULL
) STRICT;

CREATE INDEX entries_machine ON entries (machine) WHERE machine <> '';
CREATE INDEX entries_action  ON entries (action);

-- By tlog storage index.
CREATE TABLE tree_hashes (
  place INTEGER PRIMARY KEY,
  hash  BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- One row: the last signed head and the size of its tree.
CREATE TABLE tree_head (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  size INTEGER NOT NULL,
  head BLOB
) STRICT;

INSERT INTO tree_head (only, size, head) VALUES (1, 0, NULL);

-- One that is destroyed stays as a tombstone, so that its number is never used
-- again.
CREATE TABLE keyring_versions (
  keyring    TEXT    NOT NULL,
  version    INTEGER NOT NULL,
  status     TEXT    NOT NULL,
  created    INTEGER NOT NULL,
  changed    INTEGER NOT NULL,
  changed_by TEXT    NOT NULL,
  destroy_at INTEGER NOT NULL,
  PRIMARY KEY (keyring, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE wrappers (
  keyring      TEXT    NOT NULL,
  version      INTEGER NOT NULL,
  root         TEXT    NOT NULL,
  root_version TEXT    NOT NULL,
  wrapped      BLOB    NOT NULL,
  PRIMARY KEY (keyring, version, root),
  FOREIGN KEY (keyring, version) REFERENCES keyring_versions (keyring, version) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE lease_epoch (
  only  INTEGER PRIMARY KEY CHECK (only = 1),
  epoch INTEGER NOT NULL
) STRICT;

INSERT INTO lease_epoch (only, epoch) VALUES (1, 0);

-- Who does what one of several servers does at a time. A row stays: its epoch only
-- grows.
CREATE TABLE leaders (
  name     TEXT    PRIMARY KEY NOT NULL,
  epoch    INTEGER NOT NULL,
  holder   TEXT    NOT NULL, -- empty: nobody
  renewals INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row while rotations are held.
CREATE TABLE rotation_pause (
  only   INTEGER PRIMARY KEY CHECK (only = 1),
  since  INTEGER NOT NULL,
  by     TEXT    NOT NULL,
  reason TEXT    NOT NULL
) STRICT;

CREATE TABLE rotation_runs (
  num      INTEGER PRIMARY KEY,
  id       TEXT    NOT NULL UNIQUE,
  why      TEXT    NOT NULL,
  by       TEXT    NOT NULL,
  epoch    INTEGER NOT NULL, -- of the leader that runs it; 0: no leader
  started  INTEGER NOT NULL,
  ended    INTEGER NOT NULL,
  outcome  TEXT    NOT NULL,
  done     INTEGER NOT NULL,
  refused  INTEGER NOT NULL,
  failed   INTEGER NOT NULL,
  failures TEXT    NOT NULL -- JSON
) STRICT;

CREATE TABLE service_keys (
  kind            TEXT    NOT NULL,
  id              TEXT    NOT NULL,
  public          BLOB,
  keyring_version INTEGER NOT NULL, -- of keyring system
  wrapped         TEXT    NOT NULL,
  created         INTEGER NOT NULL,
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- What keyring versions did for the key API, which keeps no row of what it wraps.
CREATE TABLE keyring_uses (
  keyring      TEXT    NOT NULL,
  version      INTEGER NOT NULL,
  first        INTEGER NOT NULL,
  last         INTEGER NOT NULL,
  wraps        INTEGER NOT NULL,
  unwraps      INTEGER NOT NULL,
  dismissed    INTEGER NOT NULL,
  dismissed_by TEXT    NOT NULL,
  PRIMARY KEY (keyring, version)
) STRICT, WITHOUT ROWID;

-- The census: how many rows each keyring version opens, kept by the triggers
-- below.
CREATE TABLE dependents (
  keyring TEXT    NOT NULL,
  version INTEGER NOT NULL,
  kind    TEXT    NOT NULL,
  purpose TEXT    NOT NULL,
  status  TEXT    NOT NULL,
  n       INTEGER NOT NULL,
  PRIMARY KEY (keyring, version, kind, purpose, status)
) STRICT, WITHOUT ROWID;

-- How many rows there are of each kind and status, kept by the triggers below:
-- counting a million rows for every page of the status would not do.
CREATE TABLE counts (
  kind   TEXT    NOT NULL,
  status TEXT    NOT NULL,
  n      INTEGER NOT NULL,
  PRIMARY KEY (kind, status)
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER keyring_uses_added AFTER INSERT ON keyring_uses BEGIN
  INSERT INTO dependents VALUES (new.keyring, new.version, 'outside', 'application', '', 1) ON CONFLICT DO UPDATE SET n = 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER keyring_uses_dismissed AFTER UPDATE OF dismissed ON keyring_uses WHEN (old.dismissed = 0) <> (new.dismissed = 0) BEGIN
  UPDATE dependents SET n = (new.dismissed = 0) WHERE keyring = new.keyring AND version = new.version
    AND kind = 'outside' AND purpose = 'application' AND status = '';
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER machines_added AFTER INSERT ON machines BEGIN
  INSERT INTO counts VALUES ('machine', new.status, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER machines_changed AFTER UPDATE OF status ON machines WHEN old.status <> new.status BEGIN
  UPDATE counts SET n = n - 1 WHERE kind = 'machine' AND status = old.status;
  INSERT INTO counts VALUES ('machine', new.status, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER volumes_added AFTER INSERT ON volumes BEGIN
  INSERT INTO counts VALUES ('volume', '', 1) ON CONFLICT DO UPDATE SET n = n + 1;
  INSERT INTO counts VALUES ('alarm', 'foreign', new.has_foreign) ON CONFLICT DO UPDATE SET n = n + new.has_foreign;
  INSERT INTO counts VALUES ('alarm', 'copied', new.copied) ON CONFLICT DO UPDATE SET n = n + new.copied;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER volumes_dropped AFTER DELETE ON volumes BEGIN
  UPDATE counts SET n = n - 1 WHERE kind = 'volume';
  UPDATE counts SET n = n - old.has_foreign WHERE kind = 'alarm' AND status = 'foreign';
  UPDATE counts SET n = n - old.copied WHERE kind = 'alarm' AND status = 'copied';
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER volumes_alarmed AFTER UPDATE OF has_foreign, copied ON volumes
WHEN old.has_foreign <> new.has_foreign OR old.copied <> new.copied BEGIN
  UPDATE counts SET n = n - old.has_foreign + new.has_foreign WHERE kind = 'alarm' AND status = 'foreign';
  UPDATE counts SET n = n - old.copied + new.copied WHERE kind = 'alarm' AND status = 'copied';
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER machine_states_added AFTER INSERT ON machine_states BEGIN
  INSERT INTO counts VALUES ('alarm', 'counters', new.regressed) ON CONFLICT DO UPDATE SET n = n + new.regressed;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER machine_states_changed AFTER UPDATE OF regressed ON machine_states WHEN old.regressed <> new.regressed BEGIN
  UPDATE counts SET n = n - old.regressed + new.regressed WHERE kind = 'alarm' AND status = 'counters';
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER machine_states_dropped AFTER DELETE ON machine_states BEGIN
  UPDATE counts SET n = n - old.regressed WHERE kind = 'alarm' AND status = 'counters';
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER secrets_added AFTER INSERT ON secrets BEGIN
  INSERT INTO counts VALUES ('secret', '', 1) ON CONFLICT DO UPDATE SET n = n + 1;
  INSERT INTO dependents VALUES (new.keyring, new.keyring_version, 'secret', new.purpose, new.status, 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER secrets_dropped AFTER DELETE ON secrets BEGIN
  UPDATE counts SET n = n - 1 WHERE kind = 'secret';
  UPDATE dependents SET n = n - 1 WHERE keyring = old.keyring AND version = old.keyring_version
    AND kind = 'secret' AND purpose = old.purpose AND status = old.status;
END;
-- +goose StatementEnd
-- Whoever has a keyring version has what it ever wrapped, of secrets that are gone,
-- too: copies of headers outlive them.
-- +goose StatementBegin
CREATE TRIGGER secrets_dropped_wrapped AFTER DELETE ON secrets BEGIN
  UPDATE volumes SET wrapped_before = wrapped_before || old.wrapped_before || ' ' || old.keyring || '@' || old.wrapped_first || '-' || old.wrapped_last
    WHERE id = old.volume AND instr(wrapped_before || ' ', old.wrapped_before || ' ' || old.keyring || '@' || old.wrapped_first || '-' || old.wrapped_last || ' ') = 0;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER secrets_assigned AFTER UPDATE OF keyring ON secrets WHEN old.keyring <> new.keyring BEGIN
  UPDATE secrets SET wrapped_first = new.keyring_version, wrapped_last = new.keyring_version,
    wrapped_before = old.wrapped_before || CASE
      WHEN instr(old.wrapped_before || ' ', ' ' || old.keyring || '@' || old.wrapped_first || '-' || old.wrapped_last || ' ') > 0 THEN ''
      ELSE ' ' || old.keyring || '@' || old.wrapped_first || '-' || old.wrapped_last END
    WHERE volume = new.volume AND purpose = new.purpose AND version = new.version;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER secrets_changed AFTER UPDATE OF status, keyring, keyring_version ON secrets
WHEN old.status <> new.status OR old.keyring <> new.keyring OR old.keyring_version <> new.keyring_version BEGIN
  -- What is not kept by a version that opens is lost: it is not even written.
  SELECT RAISE(ABORT, 'the keyring version opens nothing')
    WHERE (old.keyring <> new.keyring OR old.keyring_version <> new.keyring_version) AND NOT EXISTS (SELECT 1 FROM keyring_versions
      WHERE keyring = new.keyring AND version = new.keyring_version AND status IN ('enabled', 'disabled'));
  UPDATE dependents SET n = n - 1 WHERE keyring = old.keyring AND version = old.keyring_version
    AND kind = 'secret' AND purpose = old.purpose AND status = old.status;
  INSERT INTO dependents VALUES (new.keyring, new.keyring_version, 'secret', new.purpose, new.status, 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd
-- What is not kept by a version that opens is lost: it is not even written.
-- +goose StatementBegin
CREATE TRIGGER secrets_added_open AFTER INSERT ON secrets WHEN NOT EXISTS (SELECT 1 FROM keyring_versions
  WHERE keyring = new.keyring AND version = new.keyring_version AND status IN ('enabled', 'disabled')) BEGIN
  SELECT RAISE(ABORT, 'the keyring version opens nothing');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER service_keys_added AFTER INSERT ON service_keys BEGIN
  INSERT INTO dependents VALUES ('system', new.keyring_version, 'service-key', new.kind, '', 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER service_keys_dropped AFTER DELETE ON service_keys BEGIN
  UPDATE dependents SET n = n - 1 WHERE keyring = 'system' AND version = old.keyring_version
    AND kind = 'service-key' AND purpose = old.kind AND status = '';
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER service_keys_changed AFTER UPDATE OF keyring_version ON service_keys
WHEN old.keyring_version <> new.keyring_version BEGIN
  UPDATE dependents SET n = n - 1 WHERE keyring = 'system' AND version = old.keyring_version
    AND kind = 'service-key' AND purpose = old.kind AND status = '';
  INSERT INTO dependents VALUES ('system', new.keyring_version, 'service-key', new.kind, '', 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER service_keys_added_open AFTER INSERT ON service_keys WHEN NOT EXISTS (SELECT 1 FROM keyring_versions
  WHERE keyring = 'system' AND version = new.keyring_version AND status IN ('enabled', 'disabled')) BEGIN
  SELECT RAISE(ABORT, 'the keyring version opens nothing');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER service_keys_changed_open AFTER UPDATE OF keyring_version ON service_keys
WHEN old.keyring_version <> new.keyring_version AND NOT EXISTS (SELECT 1 FROM keyring_versions
  WHERE keyring = 'system' AND version = new.keyring_version AND status IN ('enabled', 'disabled')) BEGIN
  SELECT RAISE(ABORT, 'the keyring version opens nothing');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER keyring_uses_added_open AFTER INSERT ON keyring_uses WHEN new.wraps > 0 AND NOT EXISTS (SELECT 1 FROM keyring_versions
  WHERE keyring = new.keyring AND version = new.version AND status IN ('enabled', 'disabled')) BEGIN
  SELECT RAISE(ABORT, 'the keyring version opens nothing');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER keyring_uses_changed_open AFTER UPDATE OF wraps ON keyring_uses WHEN new.wraps > old.wraps AND NOT EXISTS (SELECT 1 FROM keyring_versions
  WHERE keyring = new.keyring AND version = new.version AND status IN ('enabled', 'disabled')) BEGIN
  SELECT RAISE(ABORT, 'the keyring version opens nothing');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER measurements_added AFTER INSERT ON measurements BEGIN
  INSERT INTO counts VALUES ('measurement', new.status, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER measurements_changed AFTER UPDATE OF status ON measurements WHEN old.status <> new.status BEGIN
  UPDATE counts SET n = n - 1 WHERE kind = 'measurement' AND status = old.status;
  INSERT INTO counts VALUES ('measurement', new.status, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd
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

PRAGMA user_version = 1;
