-- Made for its machine by a clone, as the original's was by hand: deleted with the machine, unless it was detached before.
ALTER TABLE nics ADD COLUMN goes_along INTEGER NOT NULL DEFAULT 0;
