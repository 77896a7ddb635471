-- The vault: what the platform has to know and the log must not hold.

CREATE SCHEMA IF NOT EXISTS vault;

CREATE TABLE IF NOT EXISTS vault.passwords (
    user_id text PRIMARY KEY,
    hash    text NOT NULL                                    -- argon2id, in its own encoding
);
CREATE TABLE IF NOT EXISTS vault.keys (
    digest  bytea PRIMARY KEY,                               -- SHA-256 of a secret of 256 random bits
    kind    text NOT NULL CHECK (kind IN ('session', 'token', 'ticket')),
    id      text NOT NULL,                                   -- the session's, the token's; for a ticket, the notebook
    user_id text NOT NULL,
    scopes  text[] NOT NULL DEFAULT '{}',
    expires timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS keys_id ON vault.keys (id);
CREATE INDEX IF NOT EXISTS keys_user ON vault.keys (user_id);
CREATE INDEX IF NOT EXISTS keys_expires ON vault.keys (expires);

-- What is sealed. A subject's values are readable as long as its key is here, and the key that wraps it is not in this
-- database.
CREATE TABLE IF NOT EXISTS vault.subject_keys (
    subject text COLLATE "C" PRIMARY KEY,
    id      uuid   NOT NULL,
    wrapped bytea  NOT NULL,                                 -- AES-256-GCM: nonce, the key, tag
    since   bigint NOT NULL                                  -- the first position at which it was used
);
CREATE TABLE IF NOT EXISTS vault.disclosures (
    digest   text COLLATE "C" PRIMARY KEY,                   -- as it stands in `_sd` of the entry
    position bigint NOT NULL,                                -- of the first entry that it stands in
    subject  text   COLLATE "C" NOT NULL,
    name     text   NOT NULL,                                -- of the field
    key      uuid   NOT NULL,
    sealed   bytea,                                          -- AES-256-GCM: nonce, the disclosure, tag; null: erased
    lookup   bytea                                           -- by what it is found: a keyed hash; null: not at all
);
CREATE INDEX IF NOT EXISTS disclosures_subject ON vault.disclosures (subject, position);
CREATE INDEX IF NOT EXISTS disclosures_lookup ON vault.disclosures (lookup) WHERE lookup IS NOT NULL;

-- People who were erased: what is said of them later is digested into the log, and kept nowhere.
CREATE TABLE IF NOT EXISTS vault.erased (
    subject  text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL
);

-- What was erased, and may still lie in old versions of rows: see `Vault.sweep`.
CREATE TABLE IF NOT EXISTS vault.unswept (position bigint PRIMARY KEY);

-- Takes in sealed values, each with its key where that is new ('' if it came with a value before), under the lock of an
-- append and in its transaction. False if a value is under a key that is not there, or not any more: then nothing is
-- taken in, and all has to be sealed anew. One statement, which reads the parcel once: every append pays for it.
CREATE OR REPLACE FUNCTION vault.take_in(parcel json) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE fits boolean;
BEGIN
    WITH given AS MATERIALIZED (
        SELECT *, (SELECT id FROM vault.subject_keys AS keys WHERE keys.subject = one.subject) AS there,
               EXISTS (SELECT FROM vault.erased WHERE erased.subject = one.subject) AS is_erased
        FROM json_to_recordset(parcel) AS one (digest text, position bigint, subject text, name text, key uuid,
                                               sealed text, lookup text, wrapped text)
    ), verdict AS MATERIALIZED (
        SELECT bool_and(is_erased OR key IS NOT DISTINCT FROM coalesce(there, CASE WHEN wrapped IS NOT NULL THEN key END))
               AS fits
        FROM given
    ), keys AS (
        INSERT INTO vault.subject_keys (subject, id, wrapped, since)
        SELECT subject, key, decode(wrapped, 'base64'), position FROM given, verdict
        WHERE verdict.fits AND wrapped <> '' AND there IS NULL AND NOT is_erased
    ), disclosures AS (
        INSERT INTO vault.disclosures (digest, position, subject, name, key, sealed, lookup)
        SELECT digest, position, subject, name, key, CASE WHEN NOT is_erased THEN decode(sealed, 'base64') END,
               CASE WHEN NOT is_erased THEN decode(lookup, 'base64') END
        FROM given, verdict WHERE verdict.fits
        ON CONFLICT DO NOTHING
    )
    SELECT verdict.fits INTO fits FROM verdict;
    RETURN fits;
END $$;

-- Erases what was sealed for a subject before a position, at which the log says so. Done again, it changes nothing.
CREATE OR REPLACE FUNCTION vault.erase(whose text, upto bigint) RETURNS void LANGUAGE plpgsql
SET row_security = off AS $$  -- where row security hides something, it stumbles, and erases no part of it only
DECLARE gone uuid[];
BEGIN
    IF NOT EXISTS (SELECT FROM audit.entries
                   WHERE position = upto AND type = 'SubjectErased' AND bytes -> 'data' ->> 'subject' = whose) THEN
        RAISE EXCEPTION 'The log does not say at % that % is erased', upto, whose;
    END IF;
    WITH deleted AS (DELETE FROM vault.subject_keys WHERE subject = whose AND since <= upto RETURNING id)
    SELECT coalesce(array_agg(id), '{}') INTO gone FROM deleted;
    UPDATE vault.disclosures SET sealed = NULL, lookup = NULL
    WHERE subject = whose AND (sealed IS NOT NULL OR lookup IS NOT NULL) AND (position <= upto OR key = ANY(gone));
    IF whose LIKE 'user:%' THEN
        DELETE FROM vault.passwords WHERE user_id = substr(whose, 6);
        DELETE FROM vault.keys WHERE user_id = substr(whose, 6);
        INSERT INTO vault.erased VALUES (whose, upto) ON CONFLICT DO NOTHING;
    END IF;
    IF FOUND OR cardinality(gone) > 0 THEN
        INSERT INTO vault.unswept VALUES (upto) ON CONFLICT DO NOTHING;
    END IF;
    -- A trigger, or a rule, of somebody's own can undo each of these without a word.
    IF EXISTS (SELECT FROM vault.subject_keys WHERE subject = whose AND since <= upto)
       OR EXISTS (SELECT FROM vault.disclosures
                  WHERE subject = whose AND (sealed IS NOT NULL OR lookup IS NOT NULL)
                    AND (position <= upto OR key = ANY(gone)))
       OR (whose LIKE 'user:%' AND (EXISTS (SELECT FROM vault.passwords WHERE user_id = substr(whose, 6))
                                    OR EXISTS (SELECT FROM vault.keys WHERE user_id = substr(whose, 6))
                                    OR NOT EXISTS (SELECT FROM vault.erased WHERE subject = whose))) THEN
        RAISE EXCEPTION 'Something in the database keeps what was sealed for %, which is not erased', whose
            USING HINT = 'Drop what "sophon state doctor" does not know, and ask again.';
    END IF;
END $$;
