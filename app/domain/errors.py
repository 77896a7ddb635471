"""A refusal: a rule said no. Its docstring is the message, its name in kebab-case the problem's type."""

import inspect
import re
from typing import ClassVar


class Refusal(Exception):
    """The platform refuses this."""

    status: ClassVar[int] = 409
    """What HTTP calls it."""

    field: ClassVar[str | None] = None
    """The field of the request that it is about, where there is one."""

    def __init__(self, about: str = "") -> None:
        super().__init__(about)
        self.about = about
        self.recorded = False
        """Whether an entry of the log says so already."""

    @classmethod
    def problem(cls) -> str:
        """Give its stable name: `slug-taken` for `SlugTaken`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def title(cls) -> str:
        """Give its first line, a sentence a person can act on."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.title()} ({self.about})" if self.about else self.title()


class NotFound(Refusal):
    """There is no such thing, or you may not know of it."""

    status = 404


class Forbidden(Refusal):
    """You may not do this."""

    status = 403


class Conflict(Refusal):
    """What already holds does not allow this."""
