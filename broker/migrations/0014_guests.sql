-- What guests are told of themselves at their first boot.
CREATE TABLE machine_guests (
    machine TEXT PRIMARY KEY REFERENCES machines (id) ON DELETE CASCADE,
    -- Postcard of GuestData.
    data    BLOB NOT NULL,
    -- When the guest said that it has done all of it.
    home_ns INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
