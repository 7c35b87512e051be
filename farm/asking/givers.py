"""What is known of one who gives feedback, whatever the kind: a name, the parts, and a description for an address."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.errors import UserError
from farm.feedback.kind import FeedbackKind, kinds
from farm.roles.protocols import Features
from farm.storage.code_digest import class_digest
from farm.storage.store import Store

_NO_GIVERS = (type, str, int, float, dict, PurePath, re.Pattern, np.ndarray, pd.DataFrame, pd.Series)
"""what has a method `match` or `rank` of its own, and what is quickly told"""


def name_of(giver: Any) -> str:
    """The giver's ``name``, or its class where it has none."""
    return str(getattr(giver, "name", "") or type(giver).__name__)


def inside(giver: Any) -> list[Any]:
    """The givers that one is made of: what its attributes hold that has a verb of a kind, or replies as users do."""
    values = vars(giver).values() if hasattr(giver, "__dict__") else ()
    listed = (inner for value in values for inner in (value if isinstance(value, (list, tuple)) else (value,)))
    verbs = ["reply", *(kind.verb for kind in kinds().values())]
    return [one for one in listed if not isinstance(one, _NO_GIVERS) and any(hasattr(one, verb) for verb in verbs)]


def parts_of(giver: Any) -> Iterator[Any]:
    """The giver and every one inside it."""
    yield giver
    for inner in inside(giver):
        yield from parts_of(inner)


def keeps_answers(giver: Any) -> bool:
    """Whether the giver, or one inside it, keeps what it found out in a store of its own, and keeps to limits."""
    return any(hasattr(part, "store") for part in parts_of(giver))


def is_free(giver: Any) -> bool:
    """Whether every answer is only computed: those that the giver is made of say so (``free``), or else itself."""
    found = inside(giver)
    return all(map(is_free, found)) if found else bool(getattr(giver, "free", False))


def given_by(kind_of_giver: type) -> list[str]:
    """The kinds of feedback that a class gives: those whose verb it has and, of a wrapper, that it ``wraps``."""
    wraps = getattr(kind_of_giver, "wraps", None)
    return [k.name for k in kinds().values() if hasattr(kind_of_giver, k.verb) and (wraps is None or k.name in wraps)]


def gives(giver: Any) -> list[str]:
    """The kinds of feedback that one gives; a wrapper those that what is inside it gives, too."""
    found = given_by(type(giver))
    for inner in inside(giver) if hasattr(giver, "wraps") else ():
        found = [name for name in found if name in gives(inner)]
    return found


def require_gives(giver: Any, kind: FeedbackKind) -> None:
    """Refuse one who does not give a kind of feedback, or a wrapper around one who does not."""
    wraps = getattr(giver, "wraps", None)
    if not hasattr(giver, kind.verb) or (wraps is not None and kind.name not in wraps):
        what = "gives" if wraps is None else "wraps"
        known = ", ".join(given_by(type(giver))) or "no kind of feedback"
        raise UserError(f"{name_of(giver)}: {type(giver).__name__} {what} {known}, not {kind.name}")
    for inner in inside(giver) if hasattr(giver, "wraps") else ():
        require_gives(inner, kind)


def require_wraps(wrapper: Any, inner: Any) -> None:
    """Refuse one to be wrapped who gives no kind of feedback that the wrapper ``wraps``, by a ValueError."""
    if not set(gives(inner)) & set(wrapper.wraps):
        known, given = ", ".join(wrapper.wraps), ", ".join(gives(inner)) or "no feedback"
        raise ValueError(f"it wraps {known}, and {name_of(inner)} gives {given}")


def description(thing: Any) -> Any:
    """Everything that determines a giver's answers, as plain data for a content address.

    A class that has a method ``description()`` says itself, as plain data, what its answers depend on. Any other
    object is described by its class, its code and its fields (its attributes, where it is no dataclass), and features
    also by their gold weights. A store is not part of a description.

    Raises:
        UserError: for an object that cannot be described; caching it could return another giver's answers.
    """
    if thing is None or isinstance(thing, (bool, int, float, str, np.generic)):
        return thing
    if isinstance(thing, Mapping):
        return {str(k): description(v) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [description(v) for v in thing]
    if isinstance(thing, np.ndarray) and thing.dtype.kind in "biuf":
        return {"array": thing.shape, "dtype": thing.dtype.str, "digest": rng.text_id(thing.tobytes().hex())}
    if isinstance(thing, (pd.DataFrame, pd.Series)):
        return {"table": description(thing.to_dict("list" if isinstance(thing, pd.DataFrame) else "dict"))}
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if callable(getattr(thing, "description", None)):
        return {"class": kind, "description": description(thing.description())}
    fields = _fields(thing)
    if fields is None:
        raise UserError(f"{kind} cannot be cached: give it a method `description()` that returns plain data")
    gold: dict[str, Any] = {"gold weights": description(thing.gold_weights)} if isinstance(thing, Features) else {}
    return {"class": kind, "code": _code(type(thing)), **{k: description(v) for k, v in fields.items()}, **gold}


def _fields(thing: Any) -> dict[str, Any] | None:
    """What an object is made of; None where Python cannot see all of it (a function, a tensor, slots)."""
    if dataclasses.is_dataclass(thing):
        found = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing)}
    elif hasattr(thing, "__dict__") and type(thing).__basicsize__ == type("Plain", (), {}).__basicsize__:
        found = dict(vars(thing))
    else:
        return None
    return {k: v for k, v in found.items() if not isinstance(v, Store)}


def _code(kind: type) -> str:
    """A digest of the code behind a class: of its module and of what this imports within its package."""
    return class_digest(f"{kind.__module__}.{kind.__qualname__.partition('.')[0]}")
