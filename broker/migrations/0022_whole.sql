-- Snapshots of whole machines.
CREATE TABLE machine_snapshots (
    -- Its firmware's variables are kept like those of a machine with this id.
    id         TEXT PRIMARY KEY,
    machine    TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    -- The machine's settings then, as machines.applied has them.
    spec       BLOB NOT NULL,
    -- As of disks; returning: the machine is being brought back to it.
    state      TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'returning', 'deleting')),
    created_ns INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX machine_snapshot_names ON machine_snapshots (machine, name) WHERE state <> 'deleting';
-- The machine's snapshot that a disk's is a part of.
ALTER TABLE snapshots ADD COLUMN whole TEXT REFERENCES machine_snapshots (id) ON DELETE SET NULL;
CREATE INDEX snapshot_wholes ON snapshots (whole);
-- The disk that says to a guest who he is.
ALTER TABLE machine_guests ADD COLUMN seed TEXT;
