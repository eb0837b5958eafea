-- The IPv6 network of a switch that has a subnet: NET/64.
ALTER TABLE switches ADD COLUMN subnet6 TEXT NOT NULL DEFAULT '';
