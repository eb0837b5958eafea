-- Names with blanks between them, each followed by `,ro` if it is only read.
ALTER TABLE machines ADD COLUMN shares TEXT NOT NULL DEFAULT '';
-- The slot that it had last: it gets it again, so that its files in a share stay its own.
ALTER TABLE machines ADD COLUMN home INTEGER;
UPDATE machines SET home = slot;
