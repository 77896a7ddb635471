"""Settings: what cannot be meant is refused, in a sentence that says what would do."""

import pytest

from app.settings import BadSetting, Settings


@pytest.mark.parametrize(
    ("name", "shortest", "says"),
    [
        ("SOPHON_SECRET", 32, "SOPHON_SECRET has to have 32 to 1024 characters.*openssl rand -base64 32.*it has 31"),
        ("SOPHON_ADMIN_PASSWORD", 12, "SOPHON_ADMIN_PASSWORD has to have 12 to 1024 characters.*generated; it has 11"),
    ],
)
def test_a_secret_that_can_be_guessed_is_refused_and_not_repeated(name: str, shortest: int, says: str) -> None:
    assert Settings.read({name: "k" * shortest})
    assert Settings.read({name: ""}) == Settings.read({})
    for wrong in ("k" * (shortest - 1), "x", "x" * 1025):
        with pytest.raises(BadSetting) as refused:
            Settings.read({name: wrong})
        assert f" {wrong} " not in str(refused.value)
    with pytest.raises(BadSetting, match=says):
        Settings.read({name: "k" * (shortest - 1)})
