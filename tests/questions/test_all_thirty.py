"""The thirty questions of an auditor: each has a test that bears its number and quotes it."""

import re
from pathlib import Path

ASKED = re.compile(r"def test_question_(\d+)_\w{8,}\(")


def test_each_of_the_thirty_questions_has_a_test() -> None:
    here = Path(__file__).parent
    answered = {int(number) for file in here.glob("test_*.py") for number in ASKED.findall(file.read_text())}
    assert answered == set(range(1, 31))
