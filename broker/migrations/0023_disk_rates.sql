-- How much goes to and from a disk in a second, for each machine that has it; 0: as much as goes.
ALTER TABLE disks ADD COLUMN read_bps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE disks ADD COLUMN write_bps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE disks ADD COLUMN read_iops INTEGER NOT NULL DEFAULT 0;
ALTER TABLE disks ADD COLUMN write_iops INTEGER NOT NULL DEFAULT 0;
