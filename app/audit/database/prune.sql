-- Pruning: accesses that were kept long enough lose their content. The hash of what was there stays beside them, so the
-- tree, its proofs and every checkpoint stay as they are.

-- In which class an entry of a type may be pruned; null: never. Facts are not here, nor what is evidence itself (exports,
-- recoveries, seals), nor what this release does not know.
CREATE OR REPLACE FUNCTION audit.prunable(type text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE
        WHEN type IN ('Heartbeat', 'ClockSteppedBack') THEN 'pulse'
        WHEN type IN ('AuditQueried', 'GroupViewed', 'NotebookViewed', 'NotebooksListed', 'ProjectViewed',
                      'ProjectsListed', 'UsersListed', 'VisitsListed') THEN 'reads'
        WHEN type IN ('CommandRefused', 'GuestsRefused', 'LoggedIn', 'LoggedOut', 'LoginRefused', 'NotebookEntered',
                      'RequestRefused', 'TokenUsed') THEN 'security'
    END
$$;

-- What was under legal hold before a position.
CREATE OR REPLACE FUNCTION audit.held(before bigint) RETURNS text[] LANGUAGE sql STABLE STRICT AS $$
    SELECT coalesce(array_agg(about), '{}')
    FROM (
        SELECT DISTINCT ON (bytes -> 'data' ->> 'about') bytes -> 'data' ->> 'about' AS about, type
        FROM audit.entries WHERE type IN ('LegalHoldPlaced', 'LegalHoldLifted') AND position < before
        ORDER BY bytes -> 'data' ->> 'about', position DESC
    ) AS last
    WHERE type = 'LegalHoldPlaced'
$$;

-- Does what the entry at a position says: nothing is pruned that the log, two administrators in it and a checkpoint do
-- not cover, nor what was held then. Returns how many entries it pruned; done again, none.
CREATE OR REPLACE FUNCTION audit.prune(said bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    what    json;
    upto    bigint;
    signed  bigint;
    holds   text[];
    gone    bigint[];
    digests text[];
BEGIN
    PERFORM pg_advisory_xact_lock(7305796);
    SELECT bytes -> 'data' INTO what FROM audit.entries
    WHERE position = said AND type = 'LogPruned' AND outcome = 'success';
    IF what IS NULL THEN
        RAISE EXCEPTION 'The log does not say at % that it is pruned', said;
    END IF;
    upto := (what ->> 'before')::bigint;
    signed := (what ->> 'size')::bigint;
    IF NOT EXISTS (
        SELECT FROM audit.entries AS given JOIN audit.entries AS asked
            ON asked.position < given.position AND asked.type = 'ApprovalRequested'
           AND asked.bytes -> 'data' ->> 'action' = 'prune' AND asked.tags @> ARRAY['log-entries:' || upto]
           AND asked.bytes -> 'data' ->> 'by' = given.bytes -> 'data' ->> 'asked'
        WHERE given.position = said - 1 AND given.type = 'ApprovalGiven' AND given.bytes -> 'data' ->> 'action' = 'prune'
          AND given.bytes -> 'data' ->> 'about' = 'log-entries:' || upto
          AND given.bytes -> 'data' ->> 'by' <> given.bytes -> 'data' ->> 'asked'
    ) THEN
        RAISE EXCEPTION 'No two administrators have approved what the log says at %', said;
    END IF;
    IF upto > signed OR signed >= said OR NOT EXISTS (SELECT FROM audit.checkpoints WHERE size >= signed)
       OR EXISTS (SELECT FROM audit.checkpoints WHERE size = signed AND encode(root, 'hex') <> what ->> 'root') THEN
        RAISE EXCEPTION 'No checkpoint covers the entries that are pruned by %', said;
    END IF;

    holds := audit.held(said);
    SELECT array_agg(position ORDER BY position) INTO gone
    FROM audit.entries JOIN json_to_recordset(what -> 'classes') AS rule (name text, until timestamptz)
        ON rule.name = audit.prunable(type)
    WHERE position <= upto AND at < rule.until
      AND NOT (tags || ('user:' || actor) || ('user:' || (bytes -> 'actor' ->> 'obo'))) && holds;
    IF gone IS NULL THEN
        RETURN 0;
    END IF;
    IF encode(sha256(convert_to(array_to_string(gone, ','), 'UTF8')), 'hex') <> what ->> 'positions' THEN
        RAISE EXCEPTION 'What can be pruned is not what the log says at %', said;
    END IF;
    SELECT array_agg(DISTINCT digest) INTO digests
    FROM audit.entries, LATERAL (
        SELECT json_array_elements_text(coalesce(bytes #> '{data,_sd}', '[]'))
        UNION ALL SELECT json_array_elements_text(coalesce(bytes #> '{source,_sd}', '[]'))
    ) AS sealed (digest)
    WHERE position = ANY(gone);

    -- Nobody else sees the trigger switched off: this transaction holds the table, and switches it on again.
    ALTER TABLE audit.entries DISABLE TRIGGER only_grows;
    UPDATE audit.entries SET bytes = (
        '{"actor":{"kind":"system"},"at":' || (bytes -> 'at')::text || ',"data":{"by":' || said || ',"of":"'
        || audit.prunable(type) || '"},"id":' || (bytes -> 'id')::text || ',"outcome":' || (bytes -> 'outcome')::text
        || ',"tags":[],"type":"Pruned","v":1}')::json
    WHERE position = ANY(gone);
    ALTER TABLE audit.entries ENABLE TRIGGER only_grows;

    -- What the values were goes too, but for addresses that other entries of the same day rest on.
    DELETE FROM vault.disclosures AS d WHERE digest = ANY(digests)
      AND NOT EXISTS (SELECT FROM audit.entries WHERE bytes #>> '{source,_sd,0}' = d.digest);
    IF FOUND THEN
        INSERT INTO vault.unswept VALUES (said) ON CONFLICT DO NOTHING;
    END IF;
    RETURN cardinality(gone);
END $$;
