"""Whatever can be read of a platform: every address that answers a GET, and every field that is sealed."""

import itertools
from collections.abc import Sequence
from typing import Any, Protocol, get_args

from app.api.subjects import Kind
from app.audit.transparency.tiles import tiles_of
from app.domain.names import sealed_fields
from app.domain.registry import EVENTS
from app.projections.moments import KINDS

CANARY = "xcanaryx"
DOCUMENT = "/schema/openapi.json"
PAGES = ("/", "/sign-in", "/open/plots", DOCUMENT, "/schema", "/schema/oauth2-redirect.html")
"""What is no part of the API, and so not in its document."""
ENDLESS = ("/api/audit/tail",)
"""What goes on until whoever reads it leaves."""

SEALED = {(name, field) for name, event in EVENTS.items() for field, _ in sealed_fields(event)}
"""Every field that is sealed, as the type of the event and its name."""

Fields = set[tuple[str, str]]


class Somebody(Protocol):
    """Who asks: of a platform in this process, or of one that runs."""

    @property
    def user(self) -> str: ...
    async def get(self, path: str, /) -> Any: ...
    async def do(self, method: str, path: str, body: Any = None, /) -> Any: ...


async def write_canaries(who: Somebody, auditor: Somebody, keeper: Somebody) -> None:
    """Write the canary wherever there is room for free text: but a user's name, and what a run said last.

    `keeper`: an administrator, who may be none before they are erased with what they wrote.
    """
    await who.do("POST", "/api/groups", {"slug": "lab", "title": f"Lab {CANARY}"})
    await who.do("POST", "/api/projects", {"slug": "apollo", "group": "lab", "title": f"Apollo {CANARY}"})
    await who.do("POST", "/api/notebooks", {"slug": "plots", "project": "apollo", "title": f"Plots {CANARY}"})
    await who.do("POST", "/api/tokens", {"title": f"of {CANARY}"})
    await auditor.get(f"/api/audit/entries?q=reason:{CANARY}")
    why = {"reason": {"text": f"{CANARY} asked for it"}}
    await keeper.do("PUT", "/api/audit/holds/user/admin", why)


async def disclosed(admin: Somebody) -> tuple[Fields, set[str]]:
    """Name every sealed field in which an administrator reads the canary, and each address that is read."""
    types = {one["position"]: one["entry"]["type"] for one in await _all(admin, "/api/audit/entries")}
    fields, places = Fields(), set[str]()
    for subject in await subjects(admin):
        for value in await _all(admin, f"/api/audit/subjects/{subject}", "values"):
            if CANARY in str(value["value"]):
                fields.add((types[value["position"]], value["name"]))
            if value["name"] == "address":
                places.add(value["value"])
    return fields, places


async def addresses(admin: Somebody, signed: int) -> list[str]:
    """Give every address that can be got, of everything there is, with the tiles of what is signed.

    Of the entries that looking itself makes, some are enough.
    """
    document = await admin.get(DOCUMENT)
    entries = await _all(admin, "/api/audit/entries")
    looked = [one["position"] for one in entries if not EVENTS[one["entry"]["type"]].fact]
    positions = sorted({one["position"] for one in entries} - set(looked[20:]))
    kinds = [f"{kind}/{name}" for kind, name in await _things(admin)]
    tiles = tiles_of(signed)
    given: dict[str, Sequence[str]] = {
        "{group}": ("lab",),
        "{project}": ("apollo",),
        "{notebook}": ("plots",),
        "{position}/proof": [f"{one}/proof" for one in positions if one <= signed],
        "{position}": [str(one) for one in positions],
        "/audit/subjects/{kind}/{name}": [f"/audit/subjects/{one}" for one in await subjects(admin)],
        "{kind}/{name}": kinds,
        "/tile/entries/{path}": [f"/{tile.path}" for tile in tiles if tile.level is None],
        "/tile/{level}/{path}": [f"/{tile.path}" for tile in tiles if tile.level is not None],
    }
    asked = {"from": "0", "limit": "200"}
    found: list[str] = [*PAGES]
    for path, operations in document["paths"].items():
        if "get" in operations and path not in ENDLESS:
            queries = [one for one in operations["get"].get("parameters", ()) if one["in"] == "query"]
            query = "&".join(f"{one['name']}={asked[one['name']]}" for one in queries if one["name"] in asked)
            assert all(one["name"] in asked for one in queries if one.get("required")), f"{path} asks for more"
            found += [f"{one}?{query}" if query else one for one in _filled(path, given)]
    return found


async def subjects(admin: Somebody) -> list[str]:
    """Name every subject there is."""
    of_things = [f"{kind}/{name}" for kind, name in await _things(admin) if kind in get_args(Kind)]
    return [*of_things, "guest/all"]


async def _things(admin: Somebody) -> list[tuple[str, str]]:
    """Name everything that the log speaks of, by kind and name."""
    tags = {tag for one in await _all(admin, "/api/audit/entries") for tag in one["entry"].get("tags", ())}
    named = (tag.partition(":") for tag in sorted(tags))
    return [(kind, name) for kind, _, name in named if kind in KINDS]


async def _all(admin: Somebody, path: str, of: str = "items") -> list[Any]:
    """Read a list to its end."""
    page = await admin.get(f"{path}?limit=200")
    found = page[of]
    while page.get("more", page["next"] is not None):
        page = await admin.get(f"{path}?limit=200&after={page['next']}")
        found += page[of]
    return found


def _filled(path: str, given: dict[str, Sequence[str]]) -> list[str]:
    """Put each name into an address that is there."""
    for placeholder, names in given.items():
        if placeholder in path:
            return list(itertools.chain(*(_filled(path.replace(placeholder, name), given) for name in names)))
    assert "{" not in path, f"no name is known for {path}"
    return [path]
