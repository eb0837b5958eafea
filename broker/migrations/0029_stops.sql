-- Guests that were asked to power themselves off: until when that is waited for, and whether they are ended then.
CREATE TABLE stops (
    machine     TEXT PRIMARY KEY REFERENCES machines (id) ON DELETE CASCADE,
    operation   TEXT NOT NULL UNIQUE,
    deadline_ns INTEGER NOT NULL,
    force       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- How long a machine's guest has for that if nobody says otherwise.
ALTER TABLE machines ADD COLUMN stop_timeout_s INTEGER NOT NULL DEFAULT 120;
