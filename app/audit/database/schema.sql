-- The log. Run at every start; changes nothing that is there.

CREATE SCHEMA IF NOT EXISTS audit;

-- A generated column needs an immutable expression. This is one: it depends on no setting, for the text that we write.
CREATE OR REPLACE FUNCTION audit.instant(rfc3339 text) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS
$$ BEGIN RETURN rfc3339::timestamptz; END $$;

CREATE TABLE IF NOT EXISTS audit.entries (
    position   bigint PRIMARY KEY CHECK (position > 0),      -- gapless; the leaf's index in the tree is position - 1
    bytes      json   NOT NULL,                              -- the exact text that was hashed (jsonb would rewrite it)
    leaf_hash  bytea  NOT NULL CHECK (length(leaf_hash) = 32), -- written, not generated: a generated one would heal itself
    id         uuid   NOT NULL GENERATED ALWAYS AS ((bytes ->> 'id')::uuid) STORED,
    type       text   COLLATE "C" NOT NULL GENERATED ALWAYS AS (bytes ->> 'type') STORED,
    tags       text[] NOT NULL -- a tag has none of these characters
               GENERATED ALWAYS AS (string_to_array(translate(bytes ->> 'tags', '[]" ', ''), ',')) STORED,
    actor      text   COLLATE "C" GENERATED ALWAYS AS (bytes -> 'actor' ->> 'id') STORED,
    outcome    text   COLLATE "C" NOT NULL GENERATED ALWAYS AS (bytes ->> 'outcome') STORED,
    at         timestamptz NOT NULL GENERATED ALWAYS AS (audit.instant(bytes ->> 'at')) STORED
);
CREATE UNIQUE INDEX IF NOT EXISTS entries_id ON audit.entries (id);
CREATE INDEX IF NOT EXISTS entries_type ON audit.entries (type, position);
CREATE INDEX IF NOT EXISTS entries_actor ON audit.entries (actor, position);
CREATE INDEX IF NOT EXISTS entries_at ON audit.entries USING brin (at);
-- Without a pending list: decisions read this index at once, and would have to search the list each time.
CREATE INDEX IF NOT EXISTS entries_tags ON audit.entries USING gin (tags) WITH (fastupdate = off);

-- "<type> <tag>" for each tag. What a decision rests on is found by these, however long the history of its group, and
-- however many events of the type there are. The planner is told that they are dear, so that it looks into the index.
CREATE OR REPLACE FUNCTION audit.keys(type text, tags text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS
$$ BEGIN RETURN string_to_array(type || ' ' || array_to_string(tags, E'\x1f' || type || ' '), E'\x1f'); END $$;
CREATE INDEX IF NOT EXISTS entries_keys ON audit.entries USING gin (audit.keys(type, tags)) WITH (fastupdate = off);

-- Appends a batch (canonical JSON, one entry a line; 32 bytes of hash each) if the log ends where the writer believes
-- (and with the entry whose hash is `upon`, if that is given: another's may stand there, as many), and takes into the vault what belongs to it (null: nothing does), all or nothing. What the batch says was erased, or
-- pruned, is. Returns where the log ended: the writer's own belief if the batch was appended, something else if nothing was;
-- -1 if something was sealed under a key that is no more; -2 if another entry stands where the log ends.
DROP FUNCTION IF EXISTS audit.append(bigint, text, bytea, json);
CREATE OR REPLACE FUNCTION audit.append(
    believed bigint, lines text, hashes bytea, disclosures json, upon bytea DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE head bigint; stands bytea; said bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(7305796);  -- held until the commit is visible, so positions commit in order
    SELECT position, leaf_hash INTO head, stands FROM audit.entries ORDER BY position DESC LIMIT 1;
    head := coalesce(head, 0);
    IF head = believed THEN
        IF upon <> stands THEN RETURN -2; END IF;
        IF disclosures IS NOT NULL THEN
            IF NOT vault.take_in(disclosures) THEN RETURN -1; END IF;
        END IF;
        INSERT INTO audit.entries (position, bytes, leaf_hash)
        SELECT head + n, line::json, substring(hashes FROM (32 * (n - 1) + 1)::int FOR 32)
        FROM string_to_table(lines, E'\n') WITH ORDINALITY AS batch(line, n);
        IF strpos(lines, '"type":"SubjectErased"') > 0 THEN  -- within a text there would be backslashes
            PERFORM vault.erase(bytes -> 'data' ->> 'subject', position)
            FROM audit.entries WHERE position > head AND type = 'SubjectErased';
        END IF;
        IF strpos(lines, '"type":"LogPruned"') > 0 THEN
            -- Where a lost tail is appended again there may be no checkpoint yet: "state recover" prunes when there is.
            FOREACH said IN ARRAY (
                SELECT coalesce(array_agg(position ORDER BY position), '{}') FROM audit.entries
                WHERE position > head AND type = 'LogPruned'
                  AND (bytes -> 'data' ->> 'size')::bigint <= (SELECT coalesce(max(size), 0) FROM audit.checkpoints)
            ) LOOP
                PERFORM audit.prune(said);
            END LOOP;
        END IF;
    END IF;
    RETURN head;
END $$;
