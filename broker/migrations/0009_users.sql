-- Users of the API. Names are shown; ids are what other rows hold.
CREATE TABLE users (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    -- Argon2id in the PHC string format; NULL: no login with a password.
    password   TEXT,
    -- The user of the host that it is, over the UNIX socket.
    local_uid  INTEGER UNIQUE,
    disabled   INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_ns INTEGER NOT NULL
) STRICT;

-- Groups of machines, disks and NICs; each belongs to one. Quotas: 0 is any number.
CREATE TABLE machine_groups (
    id             TEXT PRIMARY KEY,
    name           TEXT NOT NULL UNIQUE,
    max_machines   INTEGER NOT NULL DEFAULT 0,
    max_cpus       INTEGER NOT NULL DEFAULT 0,
    max_memory_mib INTEGER NOT NULL DEFAULT 0,
    max_disk_bytes INTEGER NOT NULL DEFAULT 0,
    created_ns     INTEGER NOT NULL
) STRICT;
INSERT INTO machine_groups (id, name, created_ns) VALUES ('00000000-0000-0000-0000-000000000000', 'default', 0);

CREATE TABLE roles (
    user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Empty: on the host, and so in every group.
    grp  TEXT NOT NULL,
    -- 0 viewer, 1 operator, 2 admin.
    role INTEGER NOT NULL CHECK (role IN (0, 1, 2)),
    PRIMARY KEY (user, grp)
) STRICT, WITHOUT ROWID;

-- Tokens that were there belong to no user, and are an administrator's as they were.
CREATE TABLE new_tokens (
    -- SHA-256 of the token's text, which is 244 random bits.
    hash       BLOB PRIMARY KEY,
    name       TEXT NOT NULL,
    user       TEXT REFERENCES users (id) ON DELETE CASCADE,
    created_ns INTEGER NOT NULL,
    -- 0: never.
    expires_ns INTEGER NOT NULL DEFAULT 0,
    used_ns    INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO new_tokens (hash, name, created_ns) SELECT hash, name, created_ns FROM tokens;
DROP TABLE tokens;
ALTER TABLE new_tokens RENAME TO tokens;
CREATE UNIQUE INDEX token_names ON tokens (coalesce(user, ''), name);
CREATE INDEX token_users ON tokens (user);

ALTER TABLE machines ADD COLUMN grp TEXT NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
ALTER TABLE disks ADD COLUMN grp TEXT NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
ALTER TABLE nics ADD COLUMN grp TEXT NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
CREATE INDEX machines_in_group ON machines (grp);
CREATE INDEX disks_in_group ON disks (grp);
CREATE INDEX nics_in_group ON nics (grp);

-- In which group an operation works, and an event happened. NULL: seen by those alone who have a role on the host.
ALTER TABLE operations ADD COLUMN grp TEXT;
ALTER TABLE events ADD COLUMN grp TEXT;

-- Groups that a switch is open to; empty: all.
CREATE TABLE switch_groups (
    switch TEXT NOT NULL REFERENCES switches (id) ON DELETE CASCADE,
    grp    TEXT NOT NULL,
    PRIMARY KEY (switch, grp)
) STRICT, WITHOUT ROWID;
