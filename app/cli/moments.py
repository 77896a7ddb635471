"""`sophon audit show`, `diff`, `blame` and `explain`: time travel."""

import textwrap
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import rich_click as click

from app.audit.log import Log
from app.audit.signing.published import proof_of
from app.audit.signing.tree import Tree
from app.cli.asker import note_question
from app.cli.groups import audit
from app.cli.rebuilding import opened
from app.cli.work import CannotDo, run
from app.domain.audits import Question
from app.projections.fields import Change
from app.projections.moments import Difference, Moments, NoSuchMoment, Resource, Source
from app.projections.times import moment_of, recorded
from app.settings import Settings

WHEN = "A position, a time in ISO 8601, or a time ago such as “2 hours ago”; else now."


@audit.command("show")
@click.argument("resource")  # pyright: ignore[reportUnknownMemberType]
@click.option("--as-of", metavar="POS|TIME", help=WHEN)  # pyright: ignore[reportUnknownMemberType]
@click.option("--history", is_flag=True, help="Each entry that changed it, and what.")  # pyright: ignore[reportUnknownMemberType]
def audit_show(resource: str, as_of: str | None, history: bool) -> None:
    """Show what RESOURCE, such as project/apollo, is or was."""

    async def show(settings: Settings) -> None:
        async with _asking(settings, "state", resource, _said(as_of)) as (_, moments):
            thing, position = await _resource(moments, resource), await _position(moments, as_of)
            if history:
                for source, changed in await moments.history(thing, position):
                    _tell_source(source)
                    _tell_changes(changed)
                return
            moment = await moments.as_of(thing, position)
        if moment.state is None:
            raise CannotDo(f"As of position {position} there is no {thing}.")
        click.echo(msgspec.json.format(msgspec.json.encode(moment.state)).decode())

    run(show)


@audit.command("diff")
@click.argument("before", metavar="T1")  # pyright: ignore[reportUnknownMemberType]
@click.argument("after", metavar="T2")  # pyright: ignore[reportUnknownMemberType]
@click.argument("resource", required=False)  # pyright: ignore[reportUnknownMemberType]
def audit_diff(before: str, after: str, resource: str | None) -> None:
    """Tell field by field what became different between two moments: of RESOURCE, or of everything.

    T1 and T2 are positions, times in ISO 8601, times ago such as “2 hours ago”, or “now”; in either order.
    """

    async def diff(settings: Settings) -> None:
        async with _asking(settings, "diff", resource, _said(before), _said(after)) as (_, moments):
            start, end = await _position(moments, before), await _position(moments, after)
            if resource:
                _tell_differences([await moments.diff(await _resource(moments, resource), start, end)])
                return
            page = await moments.diff_all(start, end)
            _tell_differences(page.items)
            while page.next is not None:
                page = await moments.diff_all(start, end, page.next)
                _tell_differences(page.items)

    run(diff)


@audit.command("blame")
@click.argument("resource")  # pyright: ignore[reportUnknownMemberType]
@click.argument("field", required=False)  # pyright: ignore[reportUnknownMemberType]
def audit_blame(resource: str, field: str | None) -> None:
    """Tell which entry gave each field of RESOURCE, or only FIELD, its value.

    A line each, of four columns with tabs between them: position, time, field and value, what happened.
    """

    async def blame(settings: Settings) -> None:
        async with _asking(settings, "blame", resource, *([field] if field else ())) as (_, moments):
            told = await moments.blame(await _resource(moments, resource), await _position(moments, None), field)
        if not told:
            raise CannotDo(f"The log has no {resource}" + (f", or that has no field {field}." if field else "."))
        for one in told:
            value = "(ended)" if not one.field else f"{one.field} = {_json(one.value)}"
            click.echo(f"{one.by.position}\t{one.by.at.isoformat()}\t{value}\t{one.by.sentence}")

    run(blame)


@audit.command("explain")
@click.argument("position", type=click.IntRange(min=1))  # pyright: ignore[reportUnknownMemberType]
def audit_explain(position: int) -> None:
    """Say who did what at POSITION, and why; before and after; what had caused it; and the proof that it is in the log.

    The last is a C2SP tlog-proof, without the entry.
    """

    async def explain(settings: Settings) -> None:
        async with _asking(settings, "explain", None, str(position)) as (_, moments):
            told = await moments.explain(position)
        click.echo(told.sentence)
        click.echo(f"  {told.type} at position {position}, {told.at.isoformat()}, {told.outcome}, entry {told.id}")
        _tell_differences(told.changed)
        for cause in told.causes:
            click.echo("because of")
            _tell_source(cause)
        _tell_proof(told.position, told.proof)

    run(explain)


@asynccontextmanager
async def _asking(
    settings: Settings, question: Question, resource: str | None, *words: str
) -> AsyncGenerator[tuple[Log, Moments]]:
    """Open the log, record that it is read, and give what answers."""
    async with opened(settings) as log:
        moments = Moments(log, partial(proof_of, Tree(log.pool)))
        about = " ".join((*([await moments.recorded(resource)] if resource else ()), *words))
        await note_question(log, settings, question, about[:8000])
        try:
            yield log, moments
        except NoSuchMoment as error:
            raise CannotDo(str(error)) from None


def _said(text: str | None) -> str:
    return recorded(text, datetime.now(UTC))


async def _position(moments: Moments, text: str | None) -> int:
    try:
        return await moments.position_at(None if text is None else moment_of(text, datetime.now(UTC)))
    except ValueError as error:
        raise CannotDo(str(error)) from None


async def _resource(moments: Moments, text: str) -> Resource:
    try:
        return await moments.named(Resource.parse(text))
    except ValueError as error:
        raise CannotDo(str(error)) from None


def _tell_proof(position: int, proof: str | None) -> None:
    if proof is None:
        click.echo("No checkpoint covers it yet, so it cannot be proven: that takes some seconds while Sophon runs.")
        return
    click.echo(f"It is in the log; `sophon audit prove {position}` gives the same with the entry, for `check-proof`:")
    click.echo(textwrap.indent(proof, "  ", lambda _: True).rstrip(" "), nl=False)


def _tell_source(source: Source) -> None:
    click.echo(f"{source.position}\t{source.at.isoformat()}\t{source.sentence}")


def _tell_differences(differences: Sequence[Difference]) -> None:
    for difference in differences:
        click.echo(difference.resource)
        _tell_changes(difference.changes)


def _tell_changes(changed: Sequence[Change]) -> None:
    for one in changed:
        click.echo(f"  {one.field}: {_json(one.before)} → {_json(one.after)}")


def _json(value: Any) -> str:
    return "-" if value is msgspec.UNSET else msgspec.json.encode(value).decode()
