-- Where a disk, NIC or share is that has chosen no place: on the PCI bus, or its port or target on the controller that all of its kind share.
-- Until now its turn in the list said that.
ALTER TABLE machine_disks ADD COLUMN place INTEGER;
UPDATE machine_disks SET place = iif(controller IN (0, 1), 8 + position, position) WHERE slot IS NULL AND seat_controller IS NULL;
ALTER TABLE nics ADD COLUMN place INTEGER;
UPDATE nics SET place = 16 + (SELECT count(*) FROM nics AS before WHERE before.machine = nics.machine AND before.position < nics.position)
    WHERE machine IS NOT NULL AND slot IS NULL;
-- By their turns, with blanks between them; 0: chosen.
ALTER TABLE machines ADD COLUMN share_places TEXT NOT NULL DEFAULT '';
UPDATE machines SET share_places = substr('25 26 27 28', 1, 2 + 3 * (length(shares) - length(replace(shares, ' ', '')))) WHERE shares <> '';
