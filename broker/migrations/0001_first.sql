-- What users declared and what was decided about it. Facts about the host are asked from the host.
CREATE TABLE disks (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    kind       INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    allocated  INTEGER NOT NULL DEFAULT 0,
    sha256     TEXT NOT NULL DEFAULT '',
    -- creating: not usable yet; deleting: the name is free again, the file has yet to go.
    state      TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'deleting')),
    created_ns INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX disk_names ON disks (name) WHERE state <> 'deleting';

CREATE TABLE machines (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    -- creating: a clone at work; deleting: the name is free again, its files have yet to go.
    stage        TEXT NOT NULL CHECK (stage IN ('creating', 'ready', 'deleting')),
    state        TEXT NOT NULL CHECK (state IN ('stopped', 'starting', 'running', 'paused', 'stopping', 'failed')),
    note         TEXT NOT NULL DEFAULT '',
    revision     INTEGER NOT NULL DEFAULT 1,
    cpus         INTEGER NOT NULL,
    memory_mib   INTEGER NOT NULL,
    -- No kernel: UEFI.
    kernel       TEXT REFERENCES disks (id),
    initrd       TEXT REFERENCES disks (id),
    cmdline      TEXT NOT NULL DEFAULT '',
    acceleration INTEGER NOT NULL,
    screen       INTEGER NOT NULL,
    cpu_percent  INTEGER NOT NULL,
    description  TEXT NOT NULL,
    -- Taken as long as anything of it may be on the host.
    slot         INTEGER UNIQUE,
    -- What the running hypervisor was configured with.
    applied      BLOB,
    created_ns   INTEGER NOT NULL,
    started_ns   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX machine_names ON machines (name) WHERE stage <> 'deleting';
CREATE INDEX machine_kernels ON machines (kernel);
CREATE INDEX machine_initrds ON machines (initrd);

CREATE TABLE machine_disks (
    machine    TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    disk       TEXT NOT NULL REFERENCES disks (id),
    controller INTEGER NOT NULL,
    read_only  INTEGER NOT NULL,
    PRIMARY KEY (machine, position)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX disk_once ON machine_disks (disk, machine);

CREATE TABLE switches (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    -- Of its bridge on the host.
    number     INTEGER NOT NULL UNIQUE,
    uplink     TEXT NOT NULL DEFAULT '',
    created_ns INTEGER NOT NULL
) STRICT;

CREATE TABLE nics (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    -- Of its tap on the host.
    number     INTEGER NOT NULL UNIQUE,
    mac        BLOB NOT NULL UNIQUE,
    switch     TEXT REFERENCES switches (id),
    machine    TEXT REFERENCES machines (id) ON DELETE SET NULL,
    position   INTEGER NOT NULL DEFAULT 0,
    created_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX nic_machines ON nics (machine, position);
CREATE INDEX nic_switches ON nics (switch);

CREATE TABLE operations (
    -- In the order in which they began.
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    kind       TEXT NOT NULL,
    object     TEXT NOT NULL,
    user       TEXT NOT NULL,
    trace      INTEGER NOT NULL,
    -- NULL: at work; empty: done; else the refusal.
    result     BLOB,
    done       INTEGER NOT NULL DEFAULT 0,
    total      INTEGER NOT NULL DEFAULT 0,
    started_ns INTEGER NOT NULL,
    ended_ns   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX operations_at_work ON operations (number) WHERE result IS NULL;

CREATE TABLE events (
    -- Never used twice, so it resumes a watch.
    token   INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ns INTEGER NOT NULL,
    object  TEXT NOT NULL,
    id      TEXT NOT NULL,
    name    TEXT NOT NULL,
    what    TEXT NOT NULL,
    detail  TEXT NOT NULL,
    trace   INTEGER NOT NULL,
    user    TEXT NOT NULL
) STRICT;

CREATE TABLE tokens (
    -- SHA-256 of the token's text, which is 256 random bits.
    hash       BLOB PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL
) STRICT;
