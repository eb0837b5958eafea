-- How a machine's CPUs are arranged: `SOCKETS,CORES,THREADS`; empty: as usual.
ALTER TABLE machines ADD COLUMN topology TEXT NOT NULL DEFAULT '';
