"""A log of a million entries, made by SQL: a department that logs in, starts notebooks, is refused things, and goes on.

Not by appends, which would take minutes: what is measured on it is reading. A tenth of the groups fell silent early,
so that what is frequent on the whole may be rare at the end, which is where a reader begins.
"""

import psycopg
from psycopg.sql import SQL

FIRST_DAY = "2026-04-01T00:00:00Z"
SECONDS = 20
"""From one entry to the next."""

_FILL = """
INSERT INTO audit.entries (position, bytes, leaf_hash)
SELECT n, line::json, sha256(line::bytea) FROM (
    SELECT n, format(
        '{"actor":%s,"at":"%s","data":{%s},"id":"%s","outcome":"%s",%s"request":"%s","source":{"_sd":["%s"]},'
        '"tags":[%s],"type":"%s","v":1}',
        CASE WHEN slot IN (2, 3, 4, 8) THEN '{"id":"sophon","kind":"system"}'
             WHEN day % 50 = 7 THEN '{"id":"' || person || '","kind":"user","via":"token"}'
             ELSE '{"id":"' || person || '","kind":"user","via":"session"}' END,
        to_char('__FIRST__'::timestamptz AT TIME ZONE 'UTC' + n * interval '__SECONDS__ s',
                'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        CASE type WHEN 'CommandRefused' THEN '"command":"CreateNotebook"'
                  WHEN 'ProjectCreated' THEN format(
                       '"group":"%s","project":"%s","title":"A title","visibility":"internal"', team, project)
                  WHEN 'MemberAdded' THEN format('"group":"%s","role":"member","user":"%s"', team, person)
                  ELSE format('"notebook":"%s","run":"run_%s"', notebook, lpad(day::text, 26, '0')) END,
        '01940000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'),
        CASE WHEN type = 'CommandRefused' THEN 'refused' WHEN type = 'NotebookFailed' THEN 'failed' ELSE 'success' END,
        CASE WHEN type = 'CommandRefused'
             THEN '"reason":"' || (ARRAY['members-only', 'owners-only', 'notebook-slug-taken'])[day % 3 + 1] || '",'
             ELSE '' END,
        '01930000-0000-7000-8000-' || lpad(to_hex(day), 12, '0'),
        substr(translate(encode(sha256(person::bytea), 'base64'), '+/', '-_'), 1, 43),
        CASE WHEN slot = 0 OR type = 'LoggedOut'
             THEN format('"user:%s","session:ses_%s"', person, lpad(day::text, 26, '0'))
             WHEN type IN ('ProjectCreated', 'ProjectViewed') THEN format('"project:%s","group:%s"', project, team)
             WHEN type = 'MemberAdded' THEN format('"group:%s","user:%s"', team, person)
             WHEN type = 'CommandRefused' THEN format('"notebook:%s","group:%s"', notebook, team)
             WHEN type = 'NotebookCreated' THEN format('"notebook:%s","project:%s","group:%s"', notebook, project, team)
             ELSE format('"notebook:%s","run:run_%s"', notebook, lpad(day::text, 26, '0')) END,
        type
    ) AS line
    FROM (
        SELECT *, 'project-' || made AS project, 'plots-' || made AS notebook,
            'usr_' || lpad((day * 7919 % 1000)::text, 26, '0') AS person,
            'group-' || CASE WHEN day < __DAYS__ / 10 THEN day % 50 ELSE day % 45 END AS team,
            CASE slot WHEN 0 THEN 'LoggedIn' WHEN 1 THEN 'NotebookStartRequested' WHEN 2 THEN 'NotebookCreationBegan'
                WHEN 3 THEN 'NotebookContainerCreated'
                WHEN 4 THEN CASE WHEN day % 40 = 9 THEN 'NotebookFailed' ELSE 'NotebookStarted' END
                WHEN 5 THEN CASE WHEN day % 20 = 0 THEN 'ProjectCreated' ELSE 'ProjectViewed' END
                WHEN 6 THEN CASE WHEN day % 20 = 0 THEN 'NotebookCreated' ELSE 'NotebookEntered' END
                WHEN 7 THEN CASE WHEN day % 10 = 3 THEN 'CommandRefused' ELSE 'NotebookStopRequested' END
                WHEN 8 THEN 'NotebookStopped'
                ELSE CASE WHEN day < __DAYS__ / 50 THEN 'MemberAdded' ELSE 'LoggedOut' END END AS type
        FROM (
            SELECT n, n / 10 AS day, n % 10 AS slot, CASE WHEN n / 10 % 20 = 0 THEN n / 200
                ELSE ((hashint4((n / 10)::int) & 1048575)::bigint * (n / 200) / 1048576) END AS made
            FROM generate_series(1, __COUNT__) AS n
        ) AS numbered
    ) AS named
) AS written
"""


def fill(dsn: str, count: int) -> None:
    """Fill an empty log with so many entries, and let the planner look at it."""
    words = {"FIRST": FIRST_DAY, "SECONDS": SECONDS, "DAYS": count // 10, "COUNT": count}
    statement = _FILL
    for name, value in words.items():
        statement = statement.replace(f"__{name}__", str(value))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SQL(statement))  # pyright: ignore[reportArgumentType]
        connection.execute("VACUUM (ANALYZE) audit.entries")
