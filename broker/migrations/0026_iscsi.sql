-- Disks whose bytes are those of iSCSI targets.
CREATE TABLE iscsi (
    disk    TEXT PRIMARY KEY REFERENCES disks (id) ON DELETE CASCADE,
    -- ADDRESS:PORT.
    portal  TEXT NOT NULL,
    target  TEXT NOT NULL,
    lun     INTEGER NOT NULL,
    -- Of CHAP; NULL: none.
    user    TEXT,
    secret  TEXT,
    -- Of the process that is between it and a machine, and gives that its uid; NULL: there is none.
    number  INTEGER UNIQUE,
    -- The machine that it is for; NULL: it is only looked at.
    machine TEXT REFERENCES machines (id) ON DELETE SET NULL,
    UNIQUE (target, lun)
) STRICT, WITHOUT ROWID;
