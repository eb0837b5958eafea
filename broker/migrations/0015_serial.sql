-- Serial ports and debuggers.
ALTER TABLE machines ADD COLUMN serial TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN gdb INTEGER NOT NULL DEFAULT 0;
-- Controllers with names, and the disks that sit on them.
ALTER TABLE machines ADD COLUMN controllers TEXT NOT NULL DEFAULT '';
ALTER TABLE machine_disks ADD COLUMN seat_controller INTEGER;
ALTER TABLE machine_disks ADD COLUMN seat_port INTEGER;
-- ISO images.
ALTER TABLE disks ADD COLUMN iso INTEGER NOT NULL DEFAULT 0;
