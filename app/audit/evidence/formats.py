"""Entries as others write them: JSON Lines, CloudEvents 1.0, OCSF 1.3. What is sealed stays a digest in each of them.

Sources: CloudEvents specification 1.0.2, "REQUIRED Attributes", and its JSON event format; schema.ocsf.io, 1.3.0,
classes API Activity (6003), Authentication (3002) and Account Change (3001).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from app.audit.entry import Entry, Record

OCSF = "1.3.0"

API_ACTIVITY, AUTHENTICATION, ACCOUNT_CHANGE = 6003, 3002, 3001

_AUTHENTICATIONS: Mapping[str, int] = {
    "LoggedIn": 1,  # Logon
    "LoginRefused": 1,
    "LoggedOut": 2,  # Logoff
    "TokenUsed": 3,  # Authentication Ticket
}
_ACCOUNT_CHANGES: Mapping[str, int] = {
    "UserCreated": 1,  # Create
    "PasswordChanged": 3,
    "PasswordReset": 4,
    "UserErased": 6,  # Delete
    "SubjectErased": 6,
    "UserDeleted": 6,
    "TokenIssued": 99,
    "TokenRevoked": 99,
    "RoleChanged": 99,
}
_CHANGES = (
    ("Created", 1),
    ("Viewed", 2),
    ("Listed", 2),
    ("Queried", 2),
    ("Exported", 2),
    ("Deleted", 4),
    ("Erased", 4),
)
"""API Activity: how a type ends -> Create, Read, Delete; else Update (3) for facts."""

_STATUS = {"success": (1, "Success"), "refused": (2, "Failure"), "failed": (2, "Failure")}
_VIA = {"session": "Session", "token": "Token"}

_encode = msgspec.json.Encoder(order="sorted").encode


def cloudevent(record: Record, origin: str) -> dict[str, Any]:
    """Give an entry as a CloudEvent in the JSON format. `origin` is the name of the log: source and id are unique.

    `data` is the entry byte by byte as it was recorded, so that its leaf hash can be computed from it.
    """
    entry = record.entry
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": entry.id,
        "source": _reference(origin),
        "type": f"sophon.{entry.type}",
        "time": _time(entry),
        "datacontenttype": "application/json",
        "data": Raw(record.octets),
        "position": str(record.position),  # an extension; integers of CloudEvents have 32 bits
    }
    if entry.tags:
        event["subject"] = entry.tags[0]
    if entry.trace:
        event["traceparent"] = entry.trace
    return event


def ocsf(record: Record, origin: str) -> dict[str, Any]:
    """Give an entry as an OCSF event; what has no place in its class is under `unmapped`."""
    entry = record.entry
    class_, activity = _class_of(entry)
    status, status_name = _STATUS[entry.outcome]
    event: dict[str, Any] = {
        "class_uid": class_,
        "category_uid": class_ // 1000,
        "activity_id": activity,
        "type_uid": class_ * 100 + activity,
        "severity_id": 1 if entry.outcome == "success" else 2,  # Informational, Low
        "status_id": status,
        "status": status_name,
        "time": round(entry.at.timestamp() * 1000),
        "message": entry.type,
        "metadata": {
            "version": OCSF,
            "uid": entry.id,
            "sequence": record.position,
            "log_name": origin,
            "product": {"name": "Sophon", "vendor_name": "Sophon", "feature": {"name": "audit"}},
            **({"correlation_uid": entry.request} if entry.request else {}),
        },
        "actor": _actor(entry),
        "unmapped": {"entry": Raw(record.octets)},
    }
    if entry.reason:
        event["status_detail"] = entry.reason
    if class_ == API_ACTIVITY:
        event["api"] = {"operation": entry.type, **({"request": {"uid": entry.request}} if entry.request else {})}
        event["src_endpoint"] = {"name": "sealed" if b'"source":' in record.octets else "unknown"}
        event["resources"] = [_resource(tag) for tag in entry.tags]
    else:
        event["user"] = _subject(entry)
    if class_ == AUTHENTICATION:
        event["service"] = {"name": "Sophon"}
        event["is_remote"] = True
    return event


def jsonl(_origin: str, _after: int, entries: Sequence[bytes]) -> bytes:
    """Write entries as they stand, one on each line."""
    return b"\n".join([*entries, b""])


def _each(shape: Callable[[Record, str], dict[str, Any]]) -> Callable[[str, int, Sequence[bytes]], bytes]:
    def written(origin: str, after: int, entries: Sequence[bytes]) -> bytes:
        return b"".join(
            _encode(shape(Record(position, entry), origin)) + b"\n" for position, entry in enumerate(entries, after + 1)
        )

    return written


WRITTEN: Mapping[str, Callable[[str, int, Sequence[bytes]], bytes]] = {
    "jsonl": jsonl,
    "cloudevents": _each(cloudevent),
    "ocsf": _each(ocsf),
}
"""Format -> what writes the entries after a position as lines, given the log's name."""


def _class_of(entry: Entry) -> tuple[int, int]:
    """Give class_uid and activity_id."""
    if entry.type in _AUTHENTICATIONS:
        return AUTHENTICATION, _AUTHENTICATIONS[entry.type]
    if entry.type in _ACCOUNT_CHANGES:
        return ACCOUNT_CHANGE, _ACCOUNT_CHANGES[entry.type]
    return API_ACTIVITY, next((activity for end, activity in _CHANGES if entry.type.endswith(end)), 3)


def _actor(entry: Entry) -> dict[str, Any]:
    actor = entry.actor
    user = {"type_id": 1 if actor.kind == "user" else 3 if actor.kind in ("system", "service") else 0}
    described: dict[str, Any] = {"user": {**user, "uid": actor.id or actor.kind}}
    if actor.via:
        described["session"] = {"uid": entry.request or entry.id, "credential_uid": _VIA[actor.via]}
    if actor.obo:
        described["invoked_by"] = actor.obo
    return described


def _subject(entry: Entry) -> dict[str, Any]:
    """Give whom an account or a login is of: known by its opaque id only."""
    user = next((tag.partition(":")[2] for tag in entry.tags if tag.startswith("user:")), None)
    return {"uid": user or entry.actor.id or "unknown", "type_id": 1 if user else 0}


def _resource(tag: str) -> dict[str, str]:
    kind, _, name = tag.partition(":")
    return {"type": kind, "uid": tag, "name": name}


def _time(entry: Entry) -> str:
    return entry.at.isoformat().replace("+00:00", "Z")


def _reference(origin: str) -> str:
    """Give the name of a log as a URI-reference; it is a host and a path."""
    return f"//{origin}" if "/" not in origin or "." in origin.split("/")[0] else origin
