"""Names: the bounded words that identify things. A name type knows the tag under which the log files it."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, cast, get_args

from msgspec import Meta, Struct
from msgspec.inspect import Metadata, StructType, Type, UnionType, type_info

SLUG = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(?!\n)$"
"""A DNS label, in lower case: it becomes part of a host name. (`$` alone would let a final newline through.)"""

TEXT = r"^[^\x00-\x1f\x7f]*(?!\n)$"


def slug(kind: str) -> Meta:
    """Constrain a `str` to a DNS label, tagged `kind:<value>`; examples and errors of the API come from here."""
    return Meta(
        pattern=SLUG,
        max_length=63,
        description="A DNS label: lower-case letters, digits and inner hyphens, at most 63. Never used again.",
        examples=[f"my-{kind}"],
        extra={"tag": kind},
    )


def identifier(kind: str, prefix: str) -> Meta:
    """Constrain a `str` to an opaque identifier: the prefix and a UUIDv7 in 26 digits of base 32."""
    return Meta(
        pattern=rf"^{prefix}_[0-9a-v]{{26}}(?!\n)$",
        max_length=len(prefix) + 27,
        description="An opaque identifier that is never used again.",
        examples=[f"{prefix}_06dmq5v1c9t72r8k3f4g5h6j0n"],
        extra={"tag": kind},
    )


UserId = Annotated[str, identifier("user", "usr")]
"""A person's: opaque, because a name is personal data and an event is for ever."""

NotebookName = Annotated[str, slug("notebook")]
"""A notebook's, and the first label of the host that it is served on."""

Title = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        pattern=TEXT,
        description="One line of text without control characters.",
        examples=["Apollo 11"],
        extra={"sealed": True},
    ),
]
"""Free text. Somebody may have written a name into it, so it is sealed in the log."""

ERASED = "(erased)"
"""What is read in place of a text whose subject was erased, or by those who do not need to know it."""


class Personal(Struct, frozen=True):
    """Text about a person or written by one: sealed in the log, as titles are, and erased with its subject."""

    text: Annotated[str, Meta(max_length=8000)]


def is_a(name: Any, text: str) -> bool:
    """Whether a text is written as such a name is: `is_a(UserId, "usr_…")`."""
    return re.fullmatch(get_args(name)[1].pattern, text) is not None


def tags_of(words: Struct) -> tuple[str, ...]:
    """Return the tags of every name that stands in `words`, in the order of its fields, each once."""
    return tuple(dict.fromkeys(_tags(words)))


def _tags(words: Struct) -> Iterator[str]:
    for field, kind in _names_in(type(words)):
        if (value := getattr(words, field)) is not None:
            yield f"{kind}:{value}"


def name_in(words: Struct, field: str) -> str:
    """Return the tag of the name that stands in a field."""
    return f"{_kinds_in(type(words))[field]}:{getattr(words, field)}"


@cache
def _kinds_in(cls: type[Struct]) -> dict[str, str]:
    return dict(_names_in(cls))


@cache
def sealed_fields(cls: type[Struct]) -> tuple[tuple[str, str | Personal], ...]:
    """Name the fields whose values are sealed in the log, each with what is read in its place once that is erased."""
    fields = cast("StructType", type_info(cls)).fields
    return tuple((field.name, erased) for field in fields if (erased := _erased(field.type)) is not None)


def _erased(declared: Type) -> str | Personal | None:
    match declared:
        case UnionType(types=types):
            return next((found for one in types if (found := _erased(one)) is not None), None)
        case Metadata() if cast("dict[str, bool]", getattr(declared, "extra", None) or {}).get("sealed"):
            return ERASED
        case StructType(cls=cls) if cls is Personal:
            return Personal(ERASED)
        case _:
            return None


@cache
def _names_in(cls: type[Struct]) -> tuple[tuple[str, str], ...]:
    fields = cast("StructType", type_info(cls)).fields
    return tuple((field.name, kind) for field in fields if (kind := _tag_kind(field.type)))


def _tag_kind(declared: Type) -> str | None:
    match declared:
        case UnionType(types=types):
            return next(filter(None, map(_tag_kind, types)), None)
        case Metadata():
            return cast("dict[str, str]", getattr(declared, "extra", None) or {}).get("tag")
        case _:
            return None
