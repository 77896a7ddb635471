"""Every deployment option: read once from the environment, `SOPHON_*`, into one frozen value."""

import base64
import os
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, TypeVar, get_args

import msgspec
from msgspec import Struct

from app.domain.users import Username

RuntimeChoice = Literal["auto", "docker", "process"]
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_WEB = re.compile(r"https?://[^\s/?#@]+(/[^\s#]*)?")
_T = TypeVar("_T")


LOOPBACK, EVERYWHERE = ("127.0.0.1", "::1"), ("0.0.0.0", "::")  # noqa: S104


class BadSetting(Exception):
    """An environment variable has a value that cannot be meant."""


class Settings(Struct, frozen=True, kw_only=True):
    """What an administrator may choose. Each field is documented beside the variable that sets it, in README.md."""

    data: Path = Path(".sophon")
    port: int = 8000
    host: str = "localhost"
    notebook_domain: str = "localhost"
    bind: Sequence[str] = LOOPBACK
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    database_url: str | None = None
    runtime: RuntimeChoice = "auto"
    admin_username: str = "admin"
    admin_password: str | None = None
    secret: str | None = None
    notebook_memory: int = 2048
    notebook_cpus: float = 2.0
    notebook_pids: int = 512
    start_timeout: int = 120
    heartbeat: int = 300
    log_format: Literal["auto", "console", "json"] = "auto"
    signer: Path | None = None
    signs: bool = True
    log_origin: str | None = None
    witness_policy: Path | None = None
    retention: Mapping[str, int] = msgspec.field(default_factory=dict[str, int])
    timestamp_url: str | None = None
    timestamp_root: Path | None = None
    webhook_url: str | None = None
    webhook_secret: bytes | None = None

    @property
    def address(self) -> str:
        """Where browsers find the platform: an origin, without a slash at its end."""
        return f"{self._scheme}://{self.host}{self._port}"

    def notebook_address(self, notebook: str) -> str:
        """Where browsers find a notebook: an origin of its own, so that its code cannot act as the platform."""
        return f"{self._scheme}://{notebook}.{self.notebook_domain}{self._port}"

    @property
    def signer_directory(self) -> Path:
        """Where the signer keeps its keys and what it signed: never in the database."""
        return self.signer or self.data / "signer"

    @property
    def _scheme(self) -> str:
        return "https" if self.tls_certificate else "http"

    @property
    def _port(self) -> str:
        return "" if self.port == (443 if self.tls_certificate else 80) else f":{self.port}"

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment; raises `BadSetting` with a sentence that says what would do."""
        given = Environment(os.environ if environment is None else environment)
        given.together("TIMESTAMP_URL", "TIMESTAMP_ROOT")
        given.together("TLS_CERTIFICATE", "TLS_KEY")
        host = given.host("HOST", "localhost")
        signs = given.text("SIGNER", "") != "none"
        if not signs and given.origin("LOG_ORIGIN") is None:
            raise BadSetting(
                "With SOPHON_SIGNER=none, SOPHON_LOG_ORIGIN has to be the name by which the log is signed."
            )
        return cls(
            data=Path(given.text("DATA", ".sophon")).expanduser().absolute(),
            port=given.number("PORT", 8000, 1, 65535),
            host=given.public(host),
            notebook_domain=given.public(given.host("NOTEBOOK_DOMAIN", host)),
            bind=given.addresses("BIND", LOOPBACK if is_local(host) else EVERYWHERE),
            tls_certificate=given.path("TLS_CERTIFICATE"),
            tls_key=given.path("TLS_KEY"),
            database_url=given.text("DATABASE_URL", "") or None,
            runtime=given.choice("RUNTIME", "auto", get_args(RuntimeChoice)),
            admin_username=given.username("ADMIN_USERNAME", "admin"),
            admin_password=given.kept_secret("ADMIN_PASSWORD", 12, "or leave it unset, and one is generated"),
            secret=given.kept_secret(
                "SECRET", 32, "such as `openssl rand -base64 32` gives; all keys are derived from it"
            ),
            notebook_memory=given.number("NOTEBOOK_MEMORY", 2048, 256, 1_048_576),
            notebook_cpus=given.number("NOTEBOOK_CPUS", 2, 1, 1024),
            notebook_pids=given.number("NOTEBOOK_PIDS", 512, 64, 1_000_000),
            start_timeout=given.number("START_TIMEOUT", 120, 5, 3600),
            heartbeat=given.number("HEARTBEAT", 300, 0, 86_400),
            log_format=given.choice("LOG_FORMAT", "auto", ("auto", "console", "json")),
            signer=given.path("SIGNER") if signs else None,
            signs=signs,
            log_origin=given.origin("LOG_ORIGIN"),
            witness_policy=given.path("WITNESS_POLICY"),
            retention=given.days("RETENTION", ("security", "reads", "pulse")),
            timestamp_url=given.web("TIMESTAMP_URL"),
            timestamp_root=given.path("TIMESTAMP_ROOT"),
            webhook_url=given.web("WEBHOOK_URL"),
            webhook_secret=given.shared_secret("WEBHOOK_SECRET", "WEBHOOK_URL"),
        )


def is_local(host: str) -> bool:
    """Whether a host is this machine to itself only."""
    return host == "localhost" or host.endswith(".localhost")


class Environment:
    """Reads `SOPHON_<name>` as what it has to be."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, name: str, default: str) -> str:
        """Read a text; an empty variable counts as absent."""
        return self._variables.get(f"SOPHON_{name}", "").strip() or default

    def together(self, one: str, other: str) -> None:
        """See that two variables are both set, or neither."""
        if bool(self.text(one, "")) != bool(self.text(other, "")):
            there, missing = (one, other) if self.text(one, "") else (other, one)
            raise BadSetting(f"SOPHON_{there} goes with SOPHON_{missing}, which is not set.")

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """Read a whole number within bounds."""
        text = self.text(name, str(default))
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise BadSetting(f"SOPHON_{name} has to be a whole number from {low} to {high}; it is {text!r}.")
        return int(text)

    def choice(self, name: str, default: _T, choices: tuple[_T, ...]) -> _T:
        """Read one of some words."""
        text = self.text(name, str(default))
        for choice in choices:
            if choice == text:
                return choice
        raise BadSetting(f"SOPHON_{name} has to be one of {', '.join(map(str, choices))}; it is {text!r}.")

    def username(self, name: str, default: str) -> str:
        """Read a user name, by the rule for all of them."""
        text = self.text(name, default)
        try:
            return msgspec.convert(text, Username)
        except msgspec.ValidationError:
            raise BadSetting(
                f"SOPHON_{name} has to be a user name: a lower-case letter, then up to 31 lower-case letters, digits, "
                f"dots, hyphens or underscores; it is {text!r}."
            ) from None

    def path(self, name: str) -> Path | None:
        """Read a path, or none."""
        text = self.text(name, "")
        return Path(text).expanduser().absolute() if text else None

    def days(self, name: str, classes: Sequence[str]) -> Mapping[str, int]:
        """Read how many days each of some classes is kept, such as `reads=365 pulse=30`."""
        given = [part.partition("=") for part in self.text(name, "").split()]
        if bad := [one for one, _, days in given if one not in classes or not re.fullmatch(r"[1-9][0-9]{0,4}", days)]:
            raise BadSetting(
                f"SOPHON_{name} has to be days for any of {', '.join(classes)}, such as `reads=365 pulse=30`; "
                f"{bad[0]!r} is not. Facts are kept for ever."
            )
        return {one: int(days) for one, _, days in given}

    def web(self, name: str) -> str | None:
        """Read an address of the web, or none."""
        text = self.text(name, "")
        if text and not _WEB.fullmatch(text):
            raise BadSetting(f"SOPHON_{name} has to be such as https://siem.example.org/sophon; it is {text[:300]!r}.")
        return text or None

    def kept_secret(self, name: str, shortest: int, hint: str) -> str | None:
        """Read a text that nobody may guess, or none; what it is does not go into the message."""
        text = self.text(name, "")
        if text and not shortest <= len(text) <= 1024:
            raise BadSetting(f"SOPHON_{name} has to have {shortest} to 1024 characters, {hint}; it has {len(text)}.")
        return text or None

    def shared_secret(self, name: str, goes_with: str) -> bytes | None:
        """Read a secret of Standard Webhooks, or none; it has to be there if another variable is."""
        text = self.text(name, "")
        try:
            secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            secret = b""
        if (text or self.text(goes_with, "")) and not (text.startswith("whsec_") and 24 <= len(secret) <= 64):
            raise BadSetting(
                f"SOPHON_{name} has to be whsec_ and 24 to 64 bytes in base64, such as `echo whsec_$(openssl rand "
                f"-base64 32)` gives, and goes with SOPHON_{goes_with}."
            )
        return secret or None

    def origin(self, name: str) -> str | None:
        """Read the name of a log, which becomes that of its keys."""
        text = self.text(name, "")
        if text and not _ORIGIN.fullmatch(text):
            raise BadSetting(
                f"SOPHON_{name} has to be the name of a log, such as lab.example.org/log: host and path, without a "
                f"scheme, at most 200 letters, digits or any of ._/-; it is {text[:300]!r}."
            )
        return text or None

    def host(self, name: str, default: str) -> str:
        """Read a host name, without scheme, port or path."""
        text = self.text(name, default).lower()
        if not _HOST.fullmatch(text):
            raise BadSetting(f"SOPHON_{name} has to be a host name such as lab.example.org; it is {text!r}.")
        return text

    def public(self, host: str) -> str:
        """See that a browser can be logged in at a host: it keeps our cookies over HTTPS alone, or on localhost."""
        if not is_local(host) and not self.text("TLS_CERTIFICATE", ""):
            raise BadSetting(
                f"Browsers would not stay logged in at http://{host}: set SOPHON_TLS_CERTIFICATE and SOPHON_TLS_KEY to "
                "files (PEM) for the host and, with a wildcard, the notebooks; or leave SOPHON_HOST at localhost."
            )
        return host

    def addresses(self, name: str, default: Sequence[str]) -> Sequence[str]:
        """Read IP addresses of this machine; without HTTPS, of its loopback alone."""
        words = tuple(self.text(name, " ".join(default)).split())
        try:
            is_loopback = [ip_address(word).is_loopback for word in words]
        except ValueError:
            raise BadSetting(
                f"SOPHON_{name} has to be addresses of this machine, such as `0.0.0.0 ::`; it is {' '.join(words)!r}."
            ) from None
        if not all(is_loopback) and not self.text("TLS_CERTIFICATE", ""):
            raise BadSetting(
                f"SOPHON_{name} goes with SOPHON_TLS_CERTIFICATE, which is not set: passwords are sent there."
            )
        return words
