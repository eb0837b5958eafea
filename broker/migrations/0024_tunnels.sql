-- To the same switch on other hosts: VNI LOCAL FAR PORT, and the interface if FAR is a group.
ALTER TABLE switches ADD COLUMN tunnel TEXT NOT NULL DEFAULT '';
