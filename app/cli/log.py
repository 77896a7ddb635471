"""`sophon audit log` and `sophon audit tail`: what the query language asks for, as lines that can be piped."""

# pyright: reportUnknownMemberType=false
# What click's decorators take is not wholly typed.

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
import rich_click as click
from msgspec import Struct

from app.audit.entry import SYSTEM, Actor, Record
from app.audit.evidence.formats import cloudevent, ocsf
from app.audit.log import Log
from app.audit.query.language import QueryError, parse
from app.audit.query.words import action_of
from app.audit.sealing.sealer import Sealer
from app.cli.asker import note_question
from app.cli.groups import audit
from app.cli.work import CannotDo, console, run
from app.installation import database, keys_of, origin_of
from app.projections.timeline import Timeline
from app.settings import Settings
from app.tasks import end

PAGE = 1_000
LOOK_EVERY = 0.5
"""Seconds after which it is noticed that nobody reads what is written."""

Form = Literal["short", "json", "jsonl", "cloudevents", "ocsf"]
FORMS: tuple[Form, ...] = ("short", "json", "jsonl", "cloudevents", "ocsf")


class Wanted(Struct, frozen=True):
    """What is asked, how many entries at most, in which order and form, and whether to go on."""

    query: str
    count: int
    oldest_first: bool
    follow: bool
    form: Form


_QUERY = click.argument("query", nargs=-1)
_FORM = click.option("-o", "form", type=click.Choice(FORMS), default="short", show_default=True, help="One an entry.")


@audit.command("log")
@_QUERY
@click.option("--since", help="A day, a time, or such as '2 hours ago'.")
@click.option("--until", help="The same.")
@click.option("-n", "count", type=click.IntRange(0, 1_000_000), default=50, show_default=True, help="At most.")
@click.option("-r", "reverse", is_flag=True, help="The oldest of them first.")
@click.option("-f", "follow", is_flag=True, help="Go on as the log grows; the oldest first.")
@_FORM
def audit_log(
    query: tuple[str, ...], since: str | None, until: str | None, count: int, reverse: bool, follow: bool, form: Form
) -> None:
    """Show the newest entries that a QUERY asks for, such as 'actor:ada action:project.* -outcome:success'.

    Its language is described in docs/query-language.md. That the log was read is recorded in it.
    """
    asked = " ".join((*query, *_between(since, until)))
    _start(Wanted(asked, count, reverse or follow, follow, form))


@audit.command("tail")
@_QUERY
@click.option("-n", "count", type=click.IntRange(0, 1_000_000), default=10, show_default=True, help="Begin with.")
@_FORM
def audit_tail(query: tuple[str, ...], count: int, form: Form) -> None:
    """Follow the entries that a QUERY asks for, until Ctrl-C."""
    _start(Wanted(" ".join(query), count, oldest_first=True, follow=True, form=form))


def _between(since: str | None, until: str | None) -> Iterable[str]:
    if since or until:
        yield f"time:{_quoted(since)}..{_quoted(until)}"


def _quoted(text: str | None) -> str:
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"')) if text else ""


def _start(wanted: Wanted) -> None:
    try:
        parse(wanted.query, datetime.now(UTC))  # before anything is started
    except QueryError as error:
        console.print(f"[bold red]{error}[/]", highlight=False)
        sys.exit(2)
    try:
        run(lambda settings: _show(settings, wanted))
    except KeyboardInterrupt:
        if not wanted.follow:
            raise
    except BrokenPipeError:  # whoever read has enough: what is left to be flushed goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _show(settings: Settings, wanted: Wanted) -> None:
    keys = keys_of(settings)
    async with database(settings, console.print) as dsn, Log.open(dsn, Sealer(keys.vault_key())) as log:
        timeline = Timeline(log)
        question = "tail" if wanted.follow else "entries"
        await note_question(log, settings, question, await timeline.recorded(wanted.query))
        printer = Printer(timeline, wanted.form, origin_of(settings, keys))
        try:
            await _while_read(_print(printer, _pages(timeline, log.head, wanted)))
        except QueryError as error:
            raise CannotDo(str(error)) from None
        printer.end()
        if wanted.count and not printer.printed and not wanted.follow:
            console.print("The log has no such entry.", highlight=False)


async def _print(printer: "Printer", pages: AsyncGenerator[Sequence[Record]]) -> None:
    async with contextlib.aclosing(pages):
        async for page in pages:
            await printer.print(page)


async def _while_read(printing: Coroutine[None, None, None]) -> None:
    """Print as long as somebody reads; raises `BrokenPipeError` once nobody does, though nothing is written then."""
    tasks = [asyncio.create_task(printing), asyncio.create_task(_reader_leaves())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end(tasks)


async def _reader_leaves() -> None:
    output = select.poll()
    with contextlib.suppress(OSError, ValueError):  # not a file that the system knows
        output.register(sys.stdout.fileno(), 0)  # that the other end is closed is told in any case
    while not output.poll(0):
        await asyncio.sleep(LOOK_EVERY)
    raise BrokenPipeError


async def _pages(timeline: Timeline, head: int, wanted: Wanted) -> AsyncGenerator[Sequence[Record]]:
    """Give the newest entries page by page, as they stood when it began; or all, the oldest first; then what comes."""
    newest = _newest(timeline, head, wanted)
    if wanted.oldest_first:
        yield [record async for page in newest for record in page][::-1]
    else:
        async for page in newest:
            yield page
    if wanted.follow:
        async for _, page in timeline.follow(wanted.query, head):
            yield page


async def _newest(timeline: Timeline, head: int, wanted: Wanted) -> AsyncGenerator[Sequence[Record]]:
    """Go on until there are as many as are wanted, or no more: a page may be short, and not the last."""
    left, before = wanted.count, head + 1
    while left:
        page = await timeline.page(min(PAGE, left), q=wanted.query, before=before, newest=True)
        yield page.records
        left -= len(page.records)
        if page.next is None:
            return
        before = page.next


class Printer:
    """Writes entries to standard output, in one of the forms."""

    def __init__(self, timeline: Timeline, form: Form, origin: str) -> None:
        self._timeline = timeline
        self._form = form
        self._origin = origin
        self._names: dict[str, str] = {}
        self.printed = 0
        """How many."""

    async def print(self, records: Sequence[Record]) -> None:
        """Write some, at once."""
        if self._form == "short":
            await self._learn_names(records)
        for record in records:
            sys.stdout.buffer.write(self._line(record))
            self.printed += 1
        sys.stdout.buffer.flush()

    def end(self) -> None:
        """Write what comes after the last."""
        if self._form == "json":
            sys.stdout.buffer.write(b"\n]\n" if self.printed else b"[]\n")
        sys.stdout.buffer.flush()

    def _line(self, record: Record) -> bytes:
        match self._form:
            case "short":
                return f"{short(record, self._names)}\n".encode()
            case "json":
                before = b",\n" if self.printed else b"[\n"
                return before + b'{"position":%d,"entry":%b}' % (record.position, record.octets)
            case "jsonl":
                return record.octets + b"\n"
            case "cloudevents":
                return msgspec.json.encode(cloudevent(record, self._origin)) + b"\n"
            case _:
                return msgspec.json.encode(ocsf(record, self._origin)) + b"\n"

    async def _learn_names(self, records: Sequence[Record]) -> None:
        named = {
            tag.removeprefix("user:") for record in records for tag in record.entry.tags if tag.startswith("user:")
        }
        acting = {record.entry.actor.id for record in records if record.entry.actor.kind == "user"}
        if unknown := {user for user in named | acting if user} - self._names.keys():
            self._names |= dict.fromkeys(unknown, "") | await self._timeline.names.usernames(unknown)


def short(record: Record, names: Mapping[str, str]) -> str:
    """Write an entry on one line: position, time, who, what, to what, and how it ended if that was not well."""
    entry = record.entry
    actor = _named(entry.actor, names)
    tags = (tag.partition(":") for tag in entry.tags if not tag.startswith("username:"))
    resources = " ".join(f"{kind}/{names.get(name) or name}" for kind, _, name in tags)
    ended = "" if entry.outcome == "success" else f"{entry.outcome}{f' ({entry.reason})' if entry.reason else ''}"
    at = entry.at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return f"{record.position:>9}  {at}Z  {actor:<12}  {action_of(entry.type):<24}  {resources}  {ended}".rstrip()


def _named(actor: Actor, names: Mapping[str, str]) -> str:
    if actor.id is None or actor.id == SYSTEM.id:
        return actor.kind
    return names.get(actor.id) or actor.id
