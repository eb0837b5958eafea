-- Snapshots of disks.
CREATE TABLE snapshots (
    id         TEXT PRIMARY KEY,
    disk       TEXT NOT NULL REFERENCES disks (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    -- Bytes that the guest saw, and that it occupied alone when last asked.
    size       INTEGER NOT NULL DEFAULT 0,
    used       INTEGER NOT NULL DEFAULT 0,
    -- As of disks.
    state      TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'deleting')),
    created_ns INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX snapshot_names ON snapshots (disk, name) WHERE state <> 'deleting';
