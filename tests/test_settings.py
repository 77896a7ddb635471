"""Settings: what cannot be meant is refused, in a sentence that says what would do."""

from pathlib import Path

import pytest

from app.settings import BadSetting, Settings

TLS = {"SOPHON_TLS_CERTIFICATE": "/etc/lab.pem", "SOPHON_TLS_KEY": "/etc/lab.key"}
LAB = {"SOPHON_HOST": "lab.example.org"}


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


def test_on_localhost_it_is_plain_http_for_this_machine_alone() -> None:
    read = Settings.read({})
    assert (read.address, read.notebook_address("plots")) == ("http://localhost:8000", "http://plots.localhost:8000")
    assert read.bind == ("127.0.0.1", "::1")


def test_a_public_host_with_a_certificate_is_https_for_everybody() -> None:
    read = Settings.read({**LAB, **TLS, "SOPHON_PORT": "443", "SOPHON_NOTEBOOK_DOMAIN": "nb.example.org"})
    assert (read.address, read.notebook_address("plots")) == ("https://lab.example.org", "https://plots.nb.example.org")
    assert (read.bind, read.tls_certificate) == (("0.0.0.0", "::"), Path("/etc/lab.pem"))
    assert Settings.read({**LAB, **TLS}).address == "https://lab.example.org:8000"
    assert Settings.read({**LAB, **TLS, "SOPHON_BIND": "192.0.2.7"}).bind == ("192.0.2.7",)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (LAB, "would not stay logged in at http://lab.example.org: set SOPHON_TLS_CERTIFICATE and SOPHON_TLS_KEY"),
        ({"SOPHON_NOTEBOOK_DOMAIN": "nb.example.org"}, "would not stay logged in at http://nb.example.org"),
        ({**LAB, "SOPHON_TLS_KEY": "/etc/lab.key"}, "SOPHON_TLS_KEY goes with SOPHON_TLS_CERTIFICATE"),
        ({"SOPHON_BIND": "0.0.0.0"}, "SOPHON_BIND goes with SOPHON_TLS_CERTIFICATE"),
        ({**TLS, "SOPHON_BIND": "eth0"}, "SOPHON_BIND has to be addresses of this machine"),
    ],
)
def test_what_no_browser_could_use_or_would_send_passwords_in_the_clear_is_refused(
    given: dict[str, str], says: str
) -> None:
    with pytest.raises(BadSetting, match=says):
        Settings.read(given)
