"""Sight: through whose eyes something is read, and how it comes into the log that they read it."""

from collections.abc import Iterable, Sequence
from typing import Any

from litestar import Request

from app.acts import Acts
from app.api.auth import context_of
from app.dispatch import Context, using
from app.domain.audits import NotebooksListed, NotebookViewed, ProjectsListed, ProjectViewed
from app.domain.command import Caller, Power
from app.domain.event import Access
from app.identity.principal import Principal
from app.projections.notebooks import NotebookPage
from app.projections.projects import ProjectPage
from app.projections.visits import Privacy, Private


class Sight:
    """Somebody's eyes, or a guest's, which see nothing that is private."""

    def __init__(self, viewer: Caller | None, context: Context, acts: Acts, privacy: Privacy) -> None:
        self.viewer = viewer
        self._context = context
        self._acts = acts
        self._privacy = privacy

    def of_now(self, viewer: Caller | None) -> "Sight":
        """Give the same one's eyes in an answer that goes on, with what they may see by now."""
        return Sight(viewer, self._context, self._acts, self._privacy)

    async def saw(self, access: Access, things: Sequence[str] | None = None, power: Power | None = None) -> None:
        """Record that they saw something private, before they are told; `power`: what it took to see it."""
        await self._acts.saw(access, using(self._context, power), things)

    async def saw_project(self, project: ProjectPage) -> None:
        """Record that they saw a project, if it is private."""
        if project.visibility == "private":
            await self._saw_one(ProjectViewed(project=project.slug, group=project.group), project.slug)

    async def saw_notebook(self, notebook: NotebookPage, *, log: bool) -> None:
        """Record that they saw a notebook, if its project is private or if they were shown what it wrote last."""
        access = NotebookViewed(notebook=notebook.slug, project=notebook.project, group=notebook.group, log=log)
        await self._saw_one(access, notebook.project, also_open=log)

    async def saw_projects(self, projects: Iterable[str]) -> None:
        """Record that they were given a list of projects, where some are private."""
        await self._saw_listed(ProjectsListed(), projects)

    async def saw_notebooks(self, notebooks: Iterable[NotebookPage]) -> None:
        """Record that they were given a list of notebooks, where some are of private projects."""
        await self._saw_listed(NotebooksListed(), {notebook.project for notebook in notebooks})

    async def _saw_one(self, access: Access, project: str, *, also_open: bool = False) -> None:
        # Whoever has no power to use saw it as the one they are: it need not be looked up again in this hour.
        has_power = self.viewer is not None and self.viewer.administering
        if has_power or not self._acts.has_seen(access, self._context):
            for one in await self._private([project], also_open=also_open):
                await self.saw(access, power="administrator" if one.foreign else None)

    async def _saw_listed(self, access: Access, projects: Iterable[str]) -> None:
        private = await self._private(list(projects))
        for foreign in (False, True):
            things = [f"project:{one.project}" for one in private if one.foreign == foreign]
            if things:
                await self.saw(access, things, "administrator" if foreign else None)

    async def _private(self, projects: list[str], *, also_open: bool = False) -> list[Private]:
        if self.viewer is None or not projects:
            return []
        return await self._privacy.among(projects, self.viewer.user, also_open=also_open)


def sight_of(request: Request[Any, Any, Any], acts: Acts, privacy: Privacy) -> Sight:
    """Give through whose eyes is read."""
    principal: Principal | None = request.state.principal
    return Sight(principal.caller if principal else None, context_of(request), acts, privacy)
