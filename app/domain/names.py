"""Names: the bounded words that identify things. A name type knows the tag under which the log files it."""

from collections.abc import Iterator
from functools import cache
from typing import Annotated, cast

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
    ),
]


class Personal(Struct, frozen=True):
    """Text about a person or written by one: the only place in an event where such text may stand.

    It is one type so that the vault can seal every value of it in one place.
    """

    text: Annotated[str, Meta(max_length=8000)]


def tags_of(words: Struct) -> tuple[str, ...]:
    """Return the tags of every name that stands in `words`, in the order of its fields, each once."""
    return tuple(dict.fromkeys(_tags(words)))


def _tags(words: Struct) -> Iterator[str]:
    for field, kind in _names_in(type(words)):
        if (value := getattr(words, field)) is not None:
            yield f"{kind}:{value}"


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
