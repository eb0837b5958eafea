-- Switches that are subnets, and the address of each NIC on them.
ALTER TABLE switches ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
ALTER TABLE switches ADD COLUMN subnet TEXT NOT NULL DEFAULT '';
ALTER TABLE nics ADD COLUMN address TEXT;
CREATE UNIQUE INDEX nic_addresses ON nics (switch, address) WHERE address IS NOT NULL;
