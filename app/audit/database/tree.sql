-- The tree over the log: what the signer publishes of it. All of it can be derived again from the entries, and is
-- believed by nobody unproven: the signer's own memory lies outside of the database.

-- Complete tiles only (C2SP tlog-tiles): the hashes of 256 nodes beside each other. The ragged right edge is derived.
CREATE TABLE IF NOT EXISTS audit.tiles (
    level  smallint NOT NULL CHECK (level >= 0),
    index  bigint   NOT NULL CHECK (index >= 0),
    hashes bytea    NOT NULL CHECK (length(hashes) = 8192),
    root   bytea    NOT NULL CHECK (length(root) = 32),      -- of these hashes: one node of the tile above
    PRIMARY KEY (level, index)
);
ALTER TABLE audit.tiles ALTER hashes SET STORAGE EXTERNAL;   -- hashes do not compress

-- What a signer in a process of its own says: its public keys, and why it does not sign. Only ever added to.
CREATE TABLE IF NOT EXISTS audit.signer (
    n    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at   timestamptz NOT NULL DEFAULT now(),
    said json NOT NULL
);

-- Given out: signed, and cosigned by as many witnesses as the policy asked for at that time.
CREATE TABLE IF NOT EXISTS audit.checkpoints (
    size bigint PRIMARY KEY CHECK (size > 0),
    root bytea  NOT NULL CHECK (length(root) = 32),
    note bytea  NOT NULL,
    at   timestamptz NOT NULL DEFAULT now()
);
