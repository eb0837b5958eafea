-- Ports of the host's that lead to a NIC's guest, between blanks: [ADDRESS:]PORT:GUEST_PORT/tcp or /udp.
ALTER TABLE nics ADD COLUMN forwards TEXT NOT NULL DEFAULT '';
