-- NICs between which no frame goes.
ALTER TABLE nics ADD COLUMN isolated INTEGER NOT NULL DEFAULT 0;
