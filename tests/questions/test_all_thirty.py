"""The thirty questions of an auditor: each has a test that bears its number and quotes it."""

import re
from pathlib import Path

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "docs" / "auditor.md"
ASKED = re.compile(r"def test_question_(\d+)_(\w+)\(")

QUOTED: dict[int, tuple[str, ...]] = {
    1: ("who, what, when, where, outcome on every entry",),
    2: (
        "no change of state without an entry: drop every read model, replay, equal",
        "no change of state without an entry: every mutating route appends",
    ),
    3: ("entry and effect commit together: kill -9 between any two statements",),
    4: ("refused and failed attempts, with the reason",),
    5: ("login, logout, tokens made, used, revoked, roles changed", "acting on behalf"),
    6: ("reads of secrets and of private things",),
    7: ("reading the log is itself logged",),
    8: ("before and after of each change",),
    9: ("an actor's id is stable and never reused",),
    10: ("all entries of one request share its id",),
    11: ("server time, non-decreasing",),
    12: ("independent time",),
    13: ("append-only for application, owner and DBA",),
    14: ("any edit, deletion, insertion, reordering, truncation by a superuser is detected and located",),
    15: ("a full rewrite, re-hashed, with a stolen log key is detected by a witness, a saved checkpoint",),
    16: ("a restored old backup is detected",),
    17: ("a split view is detected",),
    18: ("verifiable offline, without our software or database, by openssl and shell and by Go's sumdb",),
    19: ("a receipt for one entry",),
    20: ("search by actor, resource, action, outcome, time, request, address, subject",),
    21: ("state as of a position or a time; the difference of two",),
    22: ("replay gives the same state across releases: state seals",),
    23: ("an edited read model is found and repaired",),
    24: ("erased means unreadable in exports, backups, projections, caches, logs",),
    25: ("no personal data in leaves, by canary strings",),
    26: ("everything about one person",),
    27: ("retention per class, legal hold, pruning logged",),
    28: ("complete, resumable export: tiles, JSONL, CloudEvents, OCSF",),
    29: ("auditors cannot write; nobody erases, restores or rotates keys alone",),
    30: ("if the log cannot be written, changes are refused (503) and an alarm rises", "silence is visible"),
}
"""The words of each question, in the order in which a test's name has them. Each of several has a test of its own."""


def test_each_of_the_thirty_questions_has_a_test_whose_name_quotes_it() -> None:
    names = asked(*HERE.glob("test_*.py"))
    assert names.keys() == QUOTED.keys() == set(range(1, 31))
    unquoted = [
        (number, question)
        for number, questions in QUOTED.items()
        for question in questions
        if not any(name.startswith(as_in_a_name(question)) for name in names[number])
    ]
    assert unquoted == []


def test_the_file_that_the_guide_names_for_a_question_quotes_it() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| `(tests/[a-z_/]+\.py)` \|$", GUIDE.read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(QUOTED)
    for number, file in rows:
        names, questions = asked(GUIDE.parents[1] / file).get(int(number), []), QUOTED[int(number)]
        assert any(name.startswith(as_in_a_name(one)) for name in names for one in questions), (number, file)


def asked(*files: Path) -> dict[int, list[str]]:
    """Give the names of the tests of each question, after its number."""
    found: dict[int, list[str]] = {}
    for file in files:
        for number, name in ASKED.findall(file.read_text()):
            found.setdefault(int(number), []).append(name)
    return found


def as_in_a_name(question: str) -> str:
    """Write a question as a test's name does: without what stands in no name."""
    return "_".join(re.findall(r"[a-z0-9]+", question.lower().replace("'", "")))
