-- Who may do what. Run at every start by whoever administrates the database; mends what was loosened meanwhile.
--
-- Prevention ends at a superuser, who can switch triggers off: from there on it is for verification to find out.

CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% only grows: % is refused, to its owner as to everybody', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING HINT = 'What was recorded stays. If it was wrong, record what is right; a person''s text is erased by '
                     '"sophon audit subject USER erase".';
END $$;

-- A statement is refused even if it would touch no row.
DO $$
DECLARE kept regclass;
BEGIN
    -- Only where they are missing: to make them is to wait for whoever is appending.
    FOREACH kept IN ARRAY ARRAY['audit.entries', 'audit.tiles', 'audit.checkpoints', 'audit.signer']::regclass[] LOOP
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = kept AND tgname = 'only_grows') THEN
            EXECUTE format('CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                           'FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', kept);
        END IF;
    END LOOP;
END $$;

-- A replica under another administrator keeps every row as it first was: it is sent what is inserted, and nothing else.
-- To be used, it needs wal_level = logical.
DO $$
BEGIN
    PERFORM set_config('client_min_messages', 'error', true);
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'sophon_audit') THEN
        CREATE PUBLICATION sophon_audit FOR TABLE audit.entries WITH (publish = 'insert');
    END IF;
EXCEPTION WHEN insufficient_privilege THEN NULL;  -- "sophon state doctor" names it
END $$;

-- The roles belong to the server, their rights to this database. All of it or nothing: where the user may not create
-- roles, as in some managed databases, that user goes on doing everything, and "sophon state doctor" says so.
DO $$
DECLARE
    role  text;
    ours  record;
    reads text[] := ARRAY['sophon_appender', 'sophon_reader', 'sophon_projector', 'sophon_signer'];
BEGIN
    FOREACH role IN ARRAY reads || ARRAY['sophon_owner', 'sophon_keeper'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another installation on this server made it at this moment
            END;
        END IF;
    END LOOP;
    FOREACH role IN ARRAY ARRAY['sophon_owner', 'sophon_projector'] LOOP
        IF NOT pg_has_role(current_user, role, 'USAGE') THEN  -- an administrator who is no superuser
            EXECUTE format('GRANT %I TO %I', role, current_user);
        END IF;
    END LOOP;

    -- What is there belongs to nobody who can log in.
    FOR ours IN
        SELECT nspname AS name, nspowner AS owner,
               CASE WHEN nspname ~ '^read' THEN 'sophon_projector' ELSE 'sophon_owner' END AS wanted
        FROM pg_namespace WHERE nspname IN ('audit', 'vault', 'stream') OR nspname ~ '^read(_|$)'
    LOOP
        IF ours.owner <> ours.wanted::regrole THEN
            EXECUTE format('ALTER SCHEMA %I OWNER TO %I', ours.name, ours.wanted);
        END IF;
        FOR role IN
            SELECT c.oid::regclass::text FROM pg_class AS c
            WHERE c.relnamespace = ours.name::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
              AND c.relowner <> ours.wanted::regrole
        LOOP
            EXECUTE format('ALTER TABLE %s OWNER TO %I', role, ours.wanted);
        END LOOP;
    END LOOP;
    FOR ours IN
        SELECT p.oid::regprocedure::text AS name, p.proowner AS owner,
               CASE p.oid::regproc::text WHEN 'audit.append' THEN 'sophon_appender'
                                         WHEN 'audit.prune' THEN 'sophon_appender'
                                         WHEN 'vault.erase' THEN 'sophon_keeper' END AS defined_for
        FROM pg_proc AS p WHERE p.pronamespace IN ('audit'::regnamespace, 'vault'::regnamespace) AND p.prokind = 'f'
    LOOP
        IF ours.owner <> 'sophon_owner'::regrole THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO sophon_owner', ours.name);
        END IF;
        IF ours.defined_for IS NOT NULL THEN
            -- It writes with the owner's rights. pg_temp last: else its caller could put tables of theirs before ours.
            EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, audit, pg_temp', ours.name);
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', ours.name);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', ours.name, ours.defined_for);
        END IF;
    END LOOP;

    REVOKE ALL ON SCHEMA audit, vault, stream FROM PUBLIC;
    REVOKE ALL ON ALL TABLES IN SCHEMA audit, vault, stream
        FROM PUBLIC, sophon_appender, sophon_reader, sophon_projector, sophon_signer, sophon_keeper;
    GRANT USAGE ON SCHEMA audit TO sophon_appender, sophon_reader, sophon_projector, sophon_signer;
    GRANT USAGE ON SCHEMA vault TO sophon_keeper;
    GRANT SELECT ON ALL TABLES IN SCHEMA audit TO sophon_appender, sophon_reader, sophon_projector;
    GRANT SELECT ON audit.entries TO sophon_signer;  -- it derives the root from the entries themselves
    GRANT SELECT, INSERT ON audit.tiles, audit.checkpoints, audit.signer TO sophon_signer;
    -- What is sealed comes and goes by entries of the log only, so it is the append that writes it.
    GRANT SELECT ON ALL TABLES IN SCHEMA vault TO sophon_keeper;
    GRANT INSERT, UPDATE, DELETE ON vault.passwords, vault.keys TO sophon_keeper;
    GRANT DELETE ON vault.unswept TO sophon_keeper;
    IF current_setting('server_version_num')::int >= 170000 THEN  -- before, autovacuum has to give up what was erased
        GRANT MAINTAIN ON ALL TABLES IN SCHEMA vault TO sophon_keeper;
        IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            GRANT MAINTAIN ON pg_catalog.pg_statistic TO sophon_keeper;
        END IF;
    END IF;
    GRANT USAGE ON SCHEMA stream TO sophon_projector;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA stream TO sophon_projector;
    EXECUTE format('GRANT CREATE ON DATABASE %I TO sophon_projector', current_database());
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'The roles of the log are not as they should be, and % may not mend them: %', current_user, SQLERRM;
END $$;
