"""The example in the documentation of the package does what it says."""

import re
from pathlib import Path

from tests.audit.transparency.logs import entries, leaves, tile_reader

PAGE = Path(__file__).parents[3] / "docs" / "transparency.md"


def test_the_example_of_the_documentation_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {"entries": entries(300), "read_tile": tile_reader(leaves(300))}
    exec(code, names)
    assert str(names["receipt"], "utf-8").startswith("c2sp.org/tlog-proof@v1\nindex 5\n")  # pyright: ignore
    assert names["head"].size == 300  # pyright: ignore
