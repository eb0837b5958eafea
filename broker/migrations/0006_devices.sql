ALTER TABLE machines ADD COLUMN sound INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN tpm INTEGER NOT NULL DEFAULT 0;
-- Names with blanks between them; none has one in it.
ALTER TABLE machines ADD COLUMN channels TEXT NOT NULL DEFAULT '';
