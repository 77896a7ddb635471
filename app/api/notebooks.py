"""Notebooks: make them, have them run, watch them start."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Literal

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.response import ServerSentEvent, ServerSentEventMessage
from msgspec import Struct

from app.api.addresses import NotebookInPath, OnlyProject
from app.api.answers import at, found
from app.api.auth import GUESTS, Asker, who_now
from app.api.pages import After, Limit, Page, page_of
from app.api.problems import NOTHING, PENDING, POSITION, problems
from app.api.sight import Sight
from app.dispatch import Receipt
from app.domain.command import Caller
from app.domain.groups import MembersOnly
from app.domain.names import NotebookName, Title
from app.domain.notebooks import (
    CreateNotebook,
    DeleteNotebook,
    NoSuchNotebook,
    NotebookCommand,
    StartNotebook,
    StopNotebook,
)
from app.domain.projects import NoSuchProject, ProjectName
from app.domain.runs import FailureReason, RunId, Status
from app.identifiers import new_id
from app.projections.groups import Groups
from app.projections.notebooks import NotebookPage, Notebooks
from app.projections.projector import Projector
from app.projections.projects import Projects
from app.settings import Settings

HEARTBEAT = 15.0
SETTLED = ("stopped", "ready", "failed")


class NewNotebook(Struct, frozen=True, forbid_unknown_fields=True):
    """A notebook to make."""

    slug: NotebookName
    project: ProjectName
    title: Title


class NotebookView(Struct, frozen=True):
    """A notebook and its newest run. `url` is there while it is ready; `reason` and `log` when it failed."""

    slug: NotebookName
    project: ProjectName
    title: Title
    status: Status
    url: str | None
    run: RunId | None
    reason: FailureReason | None
    exit_code: int | None
    log: str | None
    created_at: datetime
    status_at: datetime


class ProgressEvent(Struct, frozen=True):
    """One server-sent event; `data` is a notebook, in JSON."""

    id: str
    event: Literal["progress"]
    data: str


PROGRESS = ResponseSpec(
    ProgressEvent, description="Server-sent events.", media_type="text/event-stream", generate_examples=False
)


@post("/notebooks", responses=problems(403, 404, 409, 413, 415) | {202: PENDING}, response_headers=[POSITION])
async def create_notebook(
    data: JSONBody[NewNotebook],
    projects: NamedDependency[Projects],
    notebooks: NamedDependency[Notebooks],
    settings: NamedDependency[Settings],
    asker: NamedDependency[Asker],
) -> Response[NotebookView]:
    """Make a notebook in a project of a group that you belong to."""
    project = await found(projects.row_of(data.project), NoSuchProject)
    command = CreateNotebook(
        by=asker.caller, notebook=data.slug, project=data.project, group=project.group, title=data.title
    )
    try:
        receipt = await asker.ask(command)
    except MembersOnly:
        if not await projects.visible_to(asker.caller, slug=data.project):
            raise NoSuchProject from None
        raise
    return at(receipt, _view(await found(notebooks.row_of(data.slug), NoSuchNotebook), settings))


@get("/notebooks", opt={GUESTS: True}, responses=problems(403))
async def list_notebooks(
    notebooks: NamedDependency[Notebooks],
    settings: NamedDependency[Settings],
    sight: NamedDependency[Sight],
    limit: Limit = 50,
    after: After = None,
    project: OnlyProject = None,
) -> Page[NotebookView]:
    """List the notebooks of the projects that you may see, by slug."""
    rows = await notebooks.visible_to(sight.viewer, limit + 1, after, project=project)
    await sight.saw_notebooks(rows[:limit])
    return page_of(rows, limit, lambda row: row.slug, lambda row: _view(row, settings))


@get("/notebooks/{notebook:str}", opt={GUESTS: True}, responses=problems(403, 404))
async def show_notebook(
    notebook: NotebookInPath,
    notebooks: NamedDependency[Notebooks],
    groups: NamedDependency[Groups],
    settings: NamedDependency[Settings],
    sight: NamedDependency[Sight],
) -> NotebookView:
    """Show a notebook; one that you may not see is not found."""
    row = await _visible(notebooks, sight.viewer, notebook)
    view = _view(row, settings, with_log=await groups.is_open_to(sight.viewer, row.group))
    await sight.saw_notebook(row, log=view.log is not None)
    return view


@delete("/notebooks/{notebook:str}", status_code=204, responses=problems(403, 404) | {204: NOTHING})
async def delete_notebook(
    notebook: NotebookInPath,
    notebooks: NamedDependency[Notebooks],
    asker: NamedDependency[Asker],
) -> Response[None]:
    """Delete a notebook, running or not. Its volume is kept until `sophon volumes purge`."""
    row = await found(notebooks.row_of(notebook), NoSuchNotebook)
    command = DeleteNotebook(by=asker.caller, notebook=notebook, group=row.group)
    return at(await _ask(asker, command, notebooks), None, 204)


@post(
    "/notebooks/{notebook:str}/start",
    status_code=202,
    responses=problems(403, 404, 409, 413, 415),
    response_headers=[POSITION],
)
async def start_notebook(
    notebook: NotebookInPath,
    notebooks: NamedDependency[Notebooks],
    settings: NamedDependency[Settings],
    asker: NamedDependency[Asker],
) -> Response[NotebookView]:
    """Have it run. Answers at once; `GET …/progress` tells how it goes on. Starting what runs changes nothing."""
    row = await found(notebooks.row_of(notebook), NoSuchNotebook)
    command = StartNotebook(by=asker.caller, notebook=notebook, group=row.group, run=new_id("run"))
    return await _set_going(asker, command, notebooks, settings)


@post(
    "/notebooks/{notebook:str}/stop",
    status_code=202,
    responses=problems(403, 404, 409, 413, 415),
    response_headers=[POSITION],
)
async def stop_notebook(
    notebook: NotebookInPath,
    notebooks: NamedDependency[Notebooks],
    settings: NamedDependency[Settings],
    asker: NamedDependency[Asker],
) -> Response[NotebookView]:
    """Have its run end. Its files are kept. Stopping what does not run changes nothing."""
    row = await found(notebooks.row_of(notebook), NoSuchNotebook)
    command = StopNotebook(by=asker.caller, notebook=notebook, group=row.group)
    return await _set_going(asker, command, notebooks, settings)


@get(
    "/notebooks/{notebook:str}/progress",
    opt={GUESTS: True},
    responses=problems(403, 404) | {200: PROGRESS},
)
async def show_progress(
    request: Request[Any, Any, Any],
    notebook: NotebookInPath,
    notebooks: NamedDependency[Notebooks],
    groups: NamedDependency[Groups],
    projector: NamedDependency[Projector],
    settings: NamedDependency[Settings],
    sight: NamedDependency[Sight],
) -> ServerSentEvent:
    """Stream the notebook at once and at each change (server-sent events), until it is ready, stopped or failed.

    Ends when the right to see it does, or the session.
    """
    first = await _visible(notebooks, sight.viewer, notebook)
    await sight.saw_notebook(first, log=False)

    async def events() -> AsyncGenerator[ServerSentEventMessage]:
        row, eyes, last = first, sight, b""
        with projector.watch(f"notebook:{notebook}") as changed:
            while True:
                seen = _view(row, settings, with_log=await groups.is_open_to(eyes.viewer, row.group))
                if seen.log is not None:
                    await eyes.saw_notebook(row, log=True)
                if (view := msgspec.json.encode(seen)) != last:
                    yield ServerSentEventMessage(data=view.decode(), event="progress", id=str(row.position))
                    last = view
                if row.status in SETTLED:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), HEARTBEAT)
                except TimeoutError:
                    yield ServerSentEventMessage(comment="still here")
                changed.clear()
                principal = await who_now(request)
                if principal is None and sight.viewer is not None:
                    return
                eyes = sight.of_now(principal.caller if principal else None)
                rows = await notebooks.visible_to(eyes.viewer, slug=notebook)
                if not rows:
                    return
                row = rows[0]

    return ServerSentEvent(events(), headers={"Cache-Control": "no-store"})


async def _set_going(
    asker: Asker, command: NotebookCommand, notebooks: Notebooks, settings: Settings
) -> Response[NotebookView]:
    """Have something begun, and answer at once with what the notebook is now."""
    receipt = await _ask(asker, command, notebooks)
    return at(receipt, _view(await found(notebooks.row_of(command.notebook), NoSuchNotebook), settings), 202)


async def _ask(asker: Asker, command: NotebookCommand, notebooks: Notebooks) -> Receipt:
    """Have it done; who may not even know of the notebook is told that there is none (the log knows better)."""
    try:
        return await asker.ask(command)
    except MembersOnly:
        await _visible(notebooks, asker.caller, command.notebook)
        raise


async def _visible(notebooks: Notebooks, viewer: Caller | None, notebook: NotebookName) -> NotebookPage:
    rows = await notebooks.visible_to(viewer, slug=notebook)
    if not rows:
        raise NoSuchNotebook
    return rows[0]


def _view(row: NotebookPage, settings: Settings, *, with_log: bool = False) -> NotebookView:
    """Show a row; what its container wrote last is for members, where they ask for one notebook."""
    return NotebookView(
        slug=row.slug,
        project=row.project,
        title=row.title,
        status=row.status,
        url=f"{settings.notebook_address(row.slug)}/" if row.status == "ready" else None,
        run=row.run,
        reason=row.reason,
        exit_code=row.exit_code,
        log=row.log if with_log else None,
        created_at=row.created_at,
        status_at=row.status_at,
    )


routes = Router(
    "/api",
    route_handlers=[
        create_notebook,
        list_notebooks,
        show_notebook,
        delete_notebook,
        start_notebook,
        stop_notebook,
        show_progress,
    ],
    tags=["notebooks"],
)
