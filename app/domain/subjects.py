"""Subjects: whoever, or whatever, sealed values belong to. They are erased together, and stay erased."""

from typing import Annotated

from msgspec import Meta

from app.domain.event import Event

Subject = Annotated[
    str,
    Meta(
        pattern=r"^[a-z]+(:[a-z0-9_.-]{1,63})?(?!\n)$",
        max_length=100,
        description="Whose values are sealed: `user:<id>`, `project:<slug>` and so on, or `guest`.",
        examples=["user:usr_06dmq5v1c9t72r8k3f4g5h6j0n"],
    ),
]


class SubjectErased(Event, frozen=True, kw_only=True):
    """Every value that was sealed for a subject before this is unreadable, for ever and for everybody."""

    subject: Subject

    @property
    def tags(self) -> tuple[str, ...]:
        """File it under the subject itself, which is a tag already."""
        return (self.subject,)
