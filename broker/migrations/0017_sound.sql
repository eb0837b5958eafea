-- Sound devices of the host, by number.
ALTER TABLE machines ADD COLUMN sound_out INTEGER;
ALTER TABLE machines ADD COLUMN sound_in INTEGER;
