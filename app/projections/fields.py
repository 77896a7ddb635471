"""Fields: a row taken apart, so that two states of a thing can be told apart, and one be made of the other."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

State = dict[str, Any]
"""A row as JSON: what the read model has of a thing. Empty: there is no such thing, yet or any more."""


class Change(Struct, frozen=True, omit_defaults=True):
    """A field, before and after. What is absent was not there: no row, or no such member of a mapping.

    `field` is a column, or `column.key` in a column that maps keys to values.
    """

    field: str
    before: Any | UnsetType = UNSET
    after: Any | UnsetType = UNSET


def state_of(row: Struct | None) -> State:
    """Write a row as it is in JSON."""
    return msgspec.to_builtins(row) if row is not None else {}


def changes(before: State, after: State) -> list[Change]:
    """Tell field by field what is different, in the order of the fields."""
    one, other = _flat(before), _flat(after)
    names = dict.fromkeys((*one, *other))
    return [
        Change(name, one.get(name, UNSET), other.get(name, UNSET))
        for name in names
        if one.get(name, UNSET) != other.get(name, UNSET)
    ]


def applied(state: State, told: Iterable[Change]) -> State:
    """Make the later state of the earlier one, by what is told of their difference."""
    flat = _flat(state)
    for change in told:
        if change.after is UNSET:
            flat.pop(change.field, None)
        else:
            flat[change.field] = change.after
    return _folded(flat)


def _flat(state: State) -> State:
    flat: State = {}
    for name, value in state.items():
        if isinstance(value, dict):
            flat[name] = {}
            flat |= {f"{name}.{key}": one for key, one in value.items()}  # pyright: ignore
        else:
            flat[name] = value
    return flat


def _folded(flat: State) -> State:
    state: State = {}
    for name in sorted(flat, key=lambda name: "." in name):
        column, dot, key = name.partition(".")
        if dot:
            state[column][key] = flat[name]
        else:
            state[column] = dict(flat[name]) if isinstance(flat[name], dict) else flat[name]
    return state
