-- Disks that machines are made from, and what is known of them.
CREATE TABLE images (
    disk       TEXT PRIMARY KEY REFERENCES disks (id) ON DELETE CASCADE,
    source     TEXT NOT NULL,
    os         TEXT NOT NULL,
    user       TEXT NOT NULL,
    -- Bytes.
    min_disk   INTEGER NOT NULL,
    -- MiB.
    min_memory INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
