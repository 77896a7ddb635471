-- What the query language looks up, besides what decisions do (schema.sql). Every index is paid for by every append:
-- each of these either holds few entries, or is appended to at its end.

-- Refusals and failures are rare, and what an auditor asks for first.
CREATE INDEX IF NOT EXISTS entries_outcome ON audit.entries (outcome, position) WHERE outcome <> 'success';
CREATE INDEX IF NOT EXISTS entries_reason ON audit.entries ((bytes ->> 'reason'), position) WHERE outcome <> 'success';

-- Names that people chose, each where it was given: `project/ap*` is a range in it. The creator's first tag is the name.
-- The tags stand in it once more: only then is it read without the entries, which lie far between.
CREATE INDEX IF NOT EXISTS entries_names ON audit.entries ((tags[1]) text_pattern_ops) INCLUDE (tags)
    WHERE type IN ('GroupCreated', 'ProjectCreated', 'NotebookCreated');

-- Ids of requests begin with a time, so they grow; the digests of sources are few, and stand for a session each.
CREATE INDEX IF NOT EXISTS entries_request ON audit.entries ((bytes ->> 'request'), position);
CREATE INDEX IF NOT EXISTS entries_source ON audit.entries ((bytes #>> '{source,_sd,0}'), position);

-- The first position whose time is not before an instant; the one after the head, if there is none. Times never
-- decrease by position, so it is found by halving: 20 look-ups in a million entries.
CREATE OR REPLACE FUNCTION audit.first_at(instant timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE AS $$
DECLARE low bigint; high bigint; middle bigint;
BEGIN
    SELECT coalesce(min(position), 1), coalesce(max(position), 0) + 1 INTO low, high FROM audit.entries;
    WHILE low < high LOOP
        middle := (low + high) / 2;
        IF (SELECT at FROM audit.entries WHERE position = middle) < instant THEN
            low := middle + 1;
        ELSE
            high := middle;
        END IF;
    END LOOP;
    RETURN low;
END $$;

-- What administrators did in groups that they do not belong to, which those who do belong to them may see.
CREATE INDEX IF NOT EXISTS entries_powers ON audit.entries (position) WHERE (bytes -> 'actor' ->> 'role') IS NOT NULL;
