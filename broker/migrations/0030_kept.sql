-- A machine that asks for a limit which its host cannot keep is not started any more.
ALTER TABLE machines DROP COLUMN unenforced;
