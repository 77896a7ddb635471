"""What PostgreSQL's own catalogue says about the log: who owns it, who may change it, and what stands guard over it.

Asked of the catalogue, not tried out: a right that nobody has used yet is found too. Each question gives a sentence for
each thing that is not as it should be. `roles.sql` makes it so, and mends most of it at the next start.
"""

from msgspec import Struct

HIDING = """
SELECT 'Row security is switched on for ' || oid::regclass || '.' FROM pg_class
WHERE relnamespace::regnamespace::text IN ('audit', 'vault') AND (relrowsecurity OR relforcerowsecurity)
UNION ALL
SELECT 'The policy ' || polname || ' of ' || polrelid::regclass || ' is not ours.'
FROM pg_policy JOIN pg_class AS c ON c.oid = polrelid WHERE relnamespace::regnamespace::text IN ('audit', 'vault')
UNION ALL
SELECT DISTINCT c.oid::regclass || ' is no table: its rows are made up as it is read.'
FROM pg_class AS c LEFT JOIN pg_rewrite ON ev_class = c.oid AND ev_type = '1'
WHERE relnamespace::regnamespace::text IN ('audit', 'vault')
  AND (ev_class IS NOT NULL OR relkind IN ('f', 'm', 'p', 'v'))
UNION ALL
SELECT 'The rows of ' || inhrelid::regclass || ' are read as if they stood in ' || inhparent::regclass || '.'
FROM pg_inherits JOIN pg_class AS c ON c.oid = inhparent
WHERE relnamespace::regnamespace::text IN ('audit', 'vault') AND relkind = 'r'
UNION ALL
SELECT 'A cast from ' || castsource::regtype || ' to ' || casttarget::regtype || ' is not PostgreSQL''s own: '
    || 'it may make other text of an entry than it has.'
FROM pg_cast WHERE castsource = 'json'::regtype AND casttarget <> 'jsonb'::regtype
    OR oid >= 16384 AND castsource::regtype::text IN ('text', 'bytea', 'uuid')
"""
"""Asks of the log what makes a table give its readers other rows than it has; each row of the answer is a sentence."""

START_AGAIN = "Start Sophon again with SOPHON_DATABASE_URL of a superuser (or unset): it sets this right."


class Question(Struct, frozen=True):
    """A question to the catalogue under a code that stays: each row of the answer is a fault, told in a sentence."""

    code: str
    about: str
    sql: str
    mend: str


ROLES = Question(
    "SPH-DB-001",
    "the roles of the log are there",
    """
    SELECT 'The role ' || name || ' is missing.'
    FROM unnest(%(owner)s::text[] || %(duties)s::text[]) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
    """,
    "Let Sophon start once as a superuser of the database, or as a user WITH CREATEROLE who owns it: it makes them.",
)

_QUESTIONS = (
    Question(
        "SPH-DB-002",
        "the application has no rights but its own",
        """
        SELECT 'The application logs in as ' || rolname || ', who '
               || CASE WHEN rolsuper THEN 'is a superuser' WHEN rolcreaterole THEN 'may create roles'
                       WHEN rolreplication OR rolbypassrls THEN 'may replicate, or passes row security by'
                       ELSE 'owns what the log is kept in' END || '.'
        FROM pg_roles AS r
        WHERE rolname = %(application)s
          AND (rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls
               OR pg_has_role(r.oid, (SELECT nspowner FROM pg_namespace WHERE nspname = 'audit'), 'MEMBER')
               OR pg_has_role(r.oid, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'MEMBER'))
        """,
        "Let Sophon start once as a superuser of the database: it makes a login of its own. pg_hba.conf has to let it "
        "in by its password.",
    ),
    Question(
        "SPH-DB-003",
        "nobody can log in as a role of the log, and none of them has rights over the server",
        """
        SELECT 'The role ' || rolname
               || CASE WHEN rolcanlogin THEN ' can log in.' ELSE ' has rights over the server.' END
        FROM pg_roles
        WHERE rolname = ANY(%(owner)s::text[] || %(duties)s::text[])
          AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
        """,
        "ALTER ROLE <role> NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;",
    ),
    Question(
        "SPH-DB-004",
        "what the log, and its streams, are kept in belongs to sophon_owner",
        """
        SELECT what || ' belongs to ' || owner::regrole || '.'
        FROM (
            SELECT 'The schema ' || nspname, nspowner FROM pg_namespace WHERE nspname IN ('audit', 'vault', 'stream')
            UNION ALL
            SELECT 'The table ' || oid::regclass, relowner FROM pg_class
            WHERE relnamespace::regnamespace::text IN ('audit', 'vault', 'stream') AND relkind IN ('r', 'p', 'v', 'm')
            UNION ALL
            SELECT 'The function ' || oid::regprocedure, proowner FROM pg_proc
            WHERE pronamespace::regnamespace::text IN ('audit', 'vault', 'stream')
        ) AS ours (what, owner)
        WHERE owner IS DISTINCT FROM to_regrole('sophon_owner') ORDER BY what
        """,
        START_AGAIN,
    ),
    Question(
        "SPH-DB-005",
        "nobody may do more to the log, and its streams, than their duty",
        """
        WITH granted (kind, name, grantee, may) AS (
            SELECT 'schema', nspname::text, a.grantee, a.privilege_type
            FROM pg_namespace, aclexplode(nspacl) AS a WHERE nspname IN ('audit', 'vault', 'stream')
            UNION ALL
            SELECT 'table', c.oid::regclass::text, a.grantee, a.privilege_type
            FROM pg_class AS c, aclexplode(relacl) AS a
            WHERE relnamespace::regnamespace::text IN ('audit', 'vault', 'stream')
              AND relkind IN ('r', 'p', 'v', 'm', 'S')
            UNION ALL
            SELECT 'table', attrelid::regclass::text, a.grantee, a.privilege_type
            FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid, aclexplode(attacl) AS a
            WHERE relnamespace::regnamespace::text IN ('audit', 'vault', 'stream')
            UNION ALL
            SELECT 'function', p.oid::regprocedure::text, a.grantee, a.privilege_type
            FROM pg_proc AS p, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a
            WHERE pronamespace::regnamespace::text IN ('audit', 'vault', 'stream') AND prosecdef
        )
        SELECT DISTINCT CASE grantee WHEN 0 THEN 'Everybody' ELSE grantee::regrole::text END
               || ' may ' || may || ' on the ' || kind || ' ' || name || '.' AS what
        FROM granted
        WHERE grantee IS DISTINCT FROM to_regrole('sophon_owner')
          AND (kind, may) <> ('schema', 'USAGE')
          AND NOT (name LIKE 'audit.%%' AND kind = 'table' AND may = 'SELECT' AND grantee <> 0)
          AND NOT (name IN ('audit.tiles', 'audit.checkpoints', 'audit.signer') AND may = 'INSERT'
                   AND grantee IS NOT DISTINCT FROM to_regrole('sophon_signer'))
          AND NOT (name LIKE 'vault.%%' AND kind = 'table' AND grantee IS NOT DISTINCT FROM to_regrole('sophon_keeper')
                   AND (may IN ('SELECT', 'MAINTAIN') OR (name, may) = ('vault.unswept', 'DELETE')
                        OR name IN ('vault.passwords', 'vault.keys') AND may IN ('INSERT', 'UPDATE', 'DELETE')))
          AND NOT (name LIKE 'stream.%%' AND kind = 'table' AND may IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
                   AND grantee IS NOT DISTINCT FROM to_regrole('sophon_projector'))
          AND NOT ((name LIKE 'audit.append(%%' OR name LIKE 'audit.prune(%%') AND kind = 'function'
                   AND grantee IS NOT DISTINCT FROM to_regrole('sophon_appender'))
          AND NOT (name LIKE 'vault.erase(%%' AND kind = 'function'
                   AND grantee IS NOT DISTINCT FROM to_regrole('sophon_keeper'))
        ORDER BY what
        """,
        "REVOKE it: REVOKE <right> ON <object> FROM <role>;",
    ),
    Question(
        "SPH-DB-006",
        "every duty has the rights that it needs",
        """
        SELECT role || ' may not ' || may || ' on ' || name || '.'
        FROM (VALUES ('sophon_appender', 'SELECT', 'audit.entries'), ('sophon_reader', 'SELECT', 'audit.entries'),
                     ('sophon_projector', 'SELECT', 'audit.entries'), ('sophon_signer', 'SELECT', 'audit.entries'),
                     ('sophon_signer', 'INSERT', 'audit.tiles'), ('sophon_signer', 'INSERT', 'audit.checkpoints'),
                     ('sophon_signer', 'INSERT', 'audit.signer'),
                     ('sophon_keeper', 'INSERT', 'vault.passwords'), ('sophon_keeper', 'DELETE', 'vault.keys')
             ) AS needed (role, may, name)
        WHERE to_regrole(role) IS NOT NULL AND to_regclass(name) IS NOT NULL
          AND NOT has_table_privilege(to_regrole(role), to_regclass(name), may)
        UNION ALL
        SELECT 'sophon_appender may not append.' FROM pg_proc
        WHERE pronamespace = 'audit'::regnamespace AND proname = 'append' AND to_regrole('sophon_appender') IS NOT NULL
          AND NOT has_function_privilege(to_regrole('sophon_appender'), oid, 'EXECUTE')
        """,
        START_AGAIN,
    ),
    Question(
        "SPH-DB-007",
        "triggers refuse to change what was recorded, and nothing else steps in",
        """
        WITH kept (relid) AS (
            SELECT to_regclass(name)
            FROM unnest(ARRAY['audit.entries', 'audit.tiles', 'audit.checkpoints', 'audit.signer']) AS name
        )
        SELECT 'The trigger only_grows of ' || relid || CASE
                 WHEN t.oid IS NULL THEN ' is missing.'
                 WHEN tgenabled NOT IN ('O', 'A') THEN ' is switched off.'
                 ELSE ' does not do what it should.' END
        FROM kept LEFT JOIN pg_trigger AS t ON tgrelid = relid AND tgname = 'only_grows'
        WHERE relid IS NOT NULL
          AND (t.oid IS NULL OR tgenabled NOT IN ('O', 'A') OR tgqual IS NOT NULL OR tgattr::text <> ''
               -- before the statement (2), on delete (8), update (16) and truncate (32)
               OR tgtype <> 58 OR tgfoid IS DISTINCT FROM to_regproc('audit.refuse_change'))
        UNION ALL
        SELECT 'The trigger ' || tgname || ' of ' || tgrelid::regclass || ' is not ours: it runs '
               || tgfoid::regprocedure || '.'
        FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid
        WHERE relnamespace::regnamespace::text IN ('audit', 'vault', 'stream')
          AND (tgname <> 'only_grows' OR tgrelid NOT IN (SELECT relid FROM kept WHERE relid IS NOT NULL))
        UNION ALL
        SELECT 'The rule ' || rulename || ' of ' || ev_class::regclass || ' is not ours.'
        FROM pg_rewrite JOIN pg_class AS c ON c.oid = ev_class
        WHERE relnamespace::regnamespace::text IN ('audit', 'vault', 'stream')
        """,
        "ALTER TABLE <table> ENABLE TRIGGER only_grows; or, where it was altered, DROP TRIGGER only_grows ON <table>; "
        "and start Sophon again, which makes it anew. Drop what is not ours. Then run `sophon audit verify`: while the "
        "trigger was off, rows may have been changed; and erase again whoever was erased meanwhile.",
    ),
    Question(
        "SPH-DB-016",
        "whoever may read the log reads all of it, and nothing else",
        HIDING.replace("('audit', 'vault')", "('audit', 'vault', 'stream')"),
        "ALTER TABLE <table> DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY; DROP POLICY <policy> ON <table>; "
        "ALTER TABLE <other> NO INHERIT <table>; DROP CAST (<type> AS <type>); then ask again what was asked "
        "meanwhile: the answers may have lacked entries, or shown others.",
    ),
    Question(
        "SPH-DB-010",
        "the publication gives replicas what is appended, and nothing else",
        """
        SELECT 'The publication sophon_audit is missing.'
        WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'sophon_audit')
        UNION ALL
        SELECT 'The publication sophon_audit passes on more, or less, than what is appended.' FROM pg_publication
        WHERE pubname = 'sophon_audit' AND (NOT pubinsert OR pubupdate OR pubdelete OR pubtruncate OR puballtables)
        UNION ALL
        SELECT 'The publication sophon_audit is not of audit.entries, whole.' FROM pg_publication AS p
        LEFT JOIN pg_publication_rel ON prpubid = p.oid
        WHERE pubname = 'sophon_audit'
          AND (prrelid IS DISTINCT FROM to_regclass('audit.entries') OR prqual IS NOT NULL OR prattrs IS NOT NULL)
        """,
        "DROP PUBLICATION IF EXISTS sophon_audit; and start Sophon again, which makes it anew. Replicas have to "
        "refresh their subscriptions.",
    ),
    Question(
        "SPH-DB-011",
        "the roles of the log have no members but the application and its signer",
        """
        SELECT member::regrole || ' is a member of ' || roleid::regrole || '.'
        FROM pg_auth_members JOIN pg_roles AS r ON r.oid = roleid
        WHERE r.rolname = ANY(%(owner)s::text[] || %(duties)s::text[]) AND r.rolname <> 'sophon_reader'
          AND NOT (r.rolname = ANY(%(duties)s::text[]) AND member::regrole::text LIKE 'sophon\\_app\\_%%')
          AND NOT (r.rolname = 'sophon_signer' AND member::regrole::text LIKE 'sophon\\_sig\\_%%')
          AND member <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
          AND (roleid, member) NOT IN (SELECT roleid, oid FROM pg_roles WHERE rolname LIKE 'sophon\\_app\\_%%')
        """,
        "REVOKE <role> FROM <member>; (to let somebody read the log, GRANT sophon_reader).",
    ),
    Question(
        "SPH-DB-012",
        "the application of another installation cannot get in here",
        """
        SELECT rolname || ', the login of another installation, may connect to this database.'
        FROM pg_roles AS r
        WHERE rolname LIKE 'sophon\\_app\\_%%' AND rolname <> %(application)s
          AND has_database_privilege(r.oid, current_database(), 'CONNECT')
        """,
        "REVOKE CONNECT ON DATABASE <database> FROM PUBLIC; Sophon has granted it to its own login. Or, if that "
        "installation is no more: DROP ROLE <login>;",
    ),
    Question(
        "SPH-DB-013",
        "what was committed survives a crash",
        """
        SELECT name || ' is ' || setting || '.' FROM pg_settings
        WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
        UNION ALL
        SELECT 'For ' || CASE setrole WHEN 0 THEN 'everybody' ELSE setrole::regrole::text END || ', ' || given || '.'
        FROM pg_db_role_setting, unnest(setconfig) AS given
        WHERE given IN ('synchronous_commit=off', 'session_replication_role=replica')
          AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        UNION ALL
        SELECT oid::regclass || ' is not written ahead: a crash empties it.' FROM pg_class
        WHERE relnamespace::regnamespace::text IN ('audit', 'vault', 'stream') AND relkind = 'r'
          AND relpersistence <> 'p'
        """,
        "ALTER SYSTEM RESET <setting>; ALTER ROLE <role> RESET <setting>; SELECT pg_reload_conf(); or "
        "ALTER TABLE <table> SET LOGGED; then CHECKPOINT; what was committed before may be lost in a crash until then.",
    ),
    Question(
        "SPH-DB-015",
        "the server's own log quotes no rows",
        """
        SELECT 'log_error_verbosity is ' || setting || ': the DETAIL of an error may quote a row.' FROM pg_settings
        WHERE name = 'log_error_verbosity' AND setting <> 'terse'
        """,
        "ALTER SYSTEM SET log_error_verbosity = 'terse'; SELECT pg_reload_conf(); and delete the server's old logs as "
        "soon as you may: what was erased can be quoted in them.",
    ),
)

QUESTIONS = (ROLES, *_QUESTIONS)
