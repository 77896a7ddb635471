"""Sentences: what an entry says, in one line for a person. What was erased, or is nobody's business, is in none."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from app.audit.entry import SYSTEM, Actor, Record
from app.domain.command import CommandRefused
from app.domain.event import Event
from app.domain.names import Personal

TEMPLATES: Mapping[str, str] = {
    "UserCreated": "opened the account {user}, named {username}",
    "UserRolesChanged": "made {user} administrator: {administrator}, auditor: {auditor}",
    "PasswordReset": "gave {user} another password",
    "PasswordChanged": "changed their password",
    "LoggedIn": "logged in",
    "LoginRefused": "tried to log in with a wrong password",
    "LoggedOut": "logged out",
    "CommandRefused": "was refused {command}",
    "TokenIssued": "made the token {token}, “{title}”, that opens {scopes} until {expires}",
    "TokenRevoked": "revoked the token {token}",
    "TokenUsed": "used the token {token}",
    "GroupCreated": "began the group {group}, “{title}”, owned by {owner}",
    "MemberAdded": "made {user} {role} of the group {group}",
    "MemberRemoved": "let {user} go from the group {group}",
    "ProjectCreated": "began the project {project}, “{title}”, {visibility}, in the group {group}",
    "NotebookCreated": "made the notebook {notebook}, “{title}”, in the project {project}",
    "NotebookDeleted": "deleted the notebook {notebook}",
    "NotebookPurged": "had the volume of the deleted notebook {notebook} removed",
    "NotebookEntered": "came into the notebook {notebook}",
    "NotebookStartRequested": "asked for the notebook {notebook} to be started, as {run}",
    "NotebookCreationBegan": "began to make a container for {run} of the notebook {notebook}",
    "NotebookContainerCreated": "made the container of {run} of the notebook {notebook}",
    "NotebookStarted": "saw {run} of the notebook {notebook} answer",
    "NotebookFailed": "saw {run} of the notebook {notebook} fail: {reason}",
    "NotebookStopRequested": "asked for {run} of the notebook {notebook} to be stopped",
    "NotebookStopped": "saw {run} of the notebook {notebook} end as asked",
    "SubjectErased": "erased everything that was sealed for {subject}",
    "AuditQueried": "read the log ({question})",
    "StateSealed": "sealed the state as of position {position}",
    "CheckpointTimestamped": "had the checkpoint of {size} entries timestamped",
    "StateRebuilt": "rebuilt {tables} as of position {position}; {differences} rows had been different",
    "StateRepaired": "wrote {rows} rows of {tables} anew, which had been different",
}
"""By the stored name of an event; an event that is not here is told by its description and its fields."""


class Names(dict[str, str]):
    """What users are called, by their ids; somebody who is not known is called by the id alone."""

    def of(self, user: str) -> str:
        """Give a name with the id."""
        return f"{self[user]} ({user})" if user in self else user


def sentence(record: Record, names: Names) -> str:
    """Say who did what, and how that went."""
    entry = record.entry
    said = f"{who(entry.actor, names)} {_did(record.event, names)}"
    match entry.outcome:
        case "refused" if entry.type == CommandRefused.__name__:
            return f"{said}: {entry.reason}."
        case "refused":
            return f"{said}, and was refused: {entry.reason}."
        case "failed":
            return f"{said}, and failed: {entry.reason}."
        case "success":
            return f"{said}."


def who(actor: Actor, names: Names) -> str:
    """Name who did it, on whose behalf, and with what power."""
    said = {"guest": "A guest", "system": _system(actor), "service": f"The service {actor.id}"}.get(actor.kind)
    said = said or names.of(actor.id or "somebody")
    how = [
        *(["by a token"] if actor.via == "token" else []),
        *(["as administrator"] if actor.role == "administrator" else []),
        *([f"on behalf of {names.of(actor.obo)}"] if actor.obo else []),
    ]
    return f"{said}, {', '.join(how)}," if how else said


def _system(actor: Actor) -> str:
    return "Sophon" if actor.id in (None, SYSTEM.id) else f"Somebody on the server ({actor.id})"


def users_in(record: Record) -> list[str]:
    """List the ids of the users that a sentence about this entry may name."""
    actor = record.entry.actor
    said = (actor.id, actor.obo, *_plain(record.event).values())
    return list(dict.fromkeys(one for one in said if isinstance(one, str) and one.startswith("usr_")))


def _did(event: Event, names: Names) -> str:
    fields = {name: names.of(value) if value in names else value for name, value in _plain(event).items()}
    if (template := TEMPLATES.get(type(event).__name__)) is not None:
        return template.format_map(fields)
    about = ", ".join(f"{name} {value}" for name, value in fields.items() if value not in ("", "None"))
    meaning = (inspect.getdoc(type(event)) or "").partition("\n")[0].rstrip(".")
    return f"recorded {_words(type(event).__name__)} ({meaning[:1].lower()}{meaning[1:]}): {about}".rstrip(": ")


def _plain(event: Event) -> dict[str, str]:
    return {name: _text(getattr(event, name)) for name in event.__struct_fields__}


def _text(value: Any) -> str:
    match value:
        case Personal():
            return value.text
        case bool():
            return "yes" if value else "no"
        case tuple() | list() | frozenset():
            return ", ".join(_text(one) for one in value)  # pyright: ignore
        case str():
            return str(value)
        case _:
            return str(value) if value is None else msgspec.json.encode(value).decode().strip('"')


def _words(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
