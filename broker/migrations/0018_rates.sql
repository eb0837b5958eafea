-- How much goes through a NIC, bits per second, to and from its guest.
ALTER TABLE nics ADD COLUMN rate_in INTEGER;
ALTER TABLE nics ADD COLUMN rate_out INTEGER;
