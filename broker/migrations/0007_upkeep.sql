ALTER TABLE machines ADD COLUMN autostart INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN start_order INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN start_delay_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN restart INTEGER NOT NULL DEFAULT 0;
-- Whether it is to run, as its user last said; its policy is about what comes to its end against that.
ALTER TABLE machines ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;
-- Those that ran through the upgrade were started by somebody.
UPDATE machines SET wanted = 1 WHERE state IN ('starting', 'running', 'paused');
