-- Whether the host's own loader boots the machine (bhyveload).
ALTER TABLE machines ADD COLUMN loader INTEGER NOT NULL DEFAULT 0 CHECK (loader IN (0, 1));
