-- Streams: how far each receiver of the log's entries has come, and what it would not take. Losing it costs no history.

CREATE SCHEMA IF NOT EXISTS stream;

CREATE TABLE IF NOT EXISTS stream.bookmarks (
    target   text PRIMARY KEY,                               -- a digest of its address, which may hold a secret
    position bigint NOT NULL                                 -- everything up to here was taken, or is among the dead
);
CREATE TABLE IF NOT EXISTS stream.dead (
    target   text   NOT NULL,
    position bigint NOT NULL,
    tries    int    NOT NULL,
    error    text   NOT NULL,                                -- what the receiver answered the last time
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, position)
);
