-- What a cell may use, and how the host treats it. 0 and empty: not limited.
ALTER TABLE machines ADD COLUMN limit_memory_mib INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN limit_tasks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN limit_pcpu INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN limit_read_bps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN limit_write_bps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN limit_read_iops INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN limit_write_iops INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN limit_cpus TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN limit_pins TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN limit_priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN limit_protect INTEGER NOT NULL DEFAULT 0 CHECK (limit_protect IN (0, 1));
ALTER TABLE machines ADD COLUMN limit_wired INTEGER NOT NULL DEFAULT 0 CHECK (limit_wired IN (0, 1));
-- Of the running cell: what its host does not enforce and why, a line each.
ALTER TABLE machines ADD COLUMN unenforced TEXT NOT NULL DEFAULT '';
