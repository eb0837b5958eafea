-- Files that disks are kept in. Which stands on which is known here alone: no file is asked.
CREATE TABLE layers (
    -- The name of its file.
    id        TEXT PRIMARY KEY,
    kind      INTEGER NOT NULL,
    -- What it stands on.
    base      TEXT REFERENCES layers (id),
    -- Bytes that it occupied when last asked.
    allocated INTEGER NOT NULL DEFAULT 0,
    -- Whose it is as long as no disk has it.
    grp       TEXT NOT NULL,
    -- deleting: nothing needs it, its file has yet to go.
    state     TEXT NOT NULL CHECK (state IN ('ready', 'deleting'))
) STRICT;
CREATE INDEX layer_bases ON layers (base);
CREATE INDEX layers_to_go ON layers (id) WHERE state = 'deleting';
-- What its machine writes to; none: it is a volume.
ALTER TABLE disks ADD COLUMN top TEXT REFERENCES layers (id);
-- What it consists of, with what that stands on; none: it is a volume's.
ALTER TABLE snapshots ADD COLUMN layer TEXT REFERENCES layers (id);
INSERT INTO layers (id, kind, allocated, grp, state) SELECT id, kind, allocated, grp, 'ready' FROM disks WHERE kind <> 2;
UPDATE disks SET top = id WHERE kind <> 2;
CREATE INDEX disk_tops ON disks (top);
CREATE INDEX snapshot_layers ON snapshots (layer);
