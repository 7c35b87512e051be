"""What is known of one who gives feedback, whatever the kind: a name, the parts, and a description for an address."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.errors import UserError
from farm.roles.protocols import Annotator, Features
from farm.storage.code_digest import class_digest
from farm.storage.store import Store


def name_of(annotator: Annotator) -> str:
    """The annotator's ``name``, or its class where it has none."""
    return str(getattr(annotator, "name", "") or type(annotator).__name__)


def parts_of(annotator: Annotator) -> Iterator[Annotator]:
    """The annotator and every annotator inside it."""
    yield annotator
    for value in vars(annotator).values() if hasattr(annotator, "__dict__") else ():
        for inner in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(inner, Annotator) and not isinstance(inner, type):
                yield from parts_of(inner)


def keeps_answers(annotator: Annotator) -> bool:
    """Whether the annotator, or one inside it, keeps what it found out in a store of its own accord."""
    return any(hasattr(part, "store") for part in parts_of(annotator))


def description(thing: Any) -> Any:
    """Everything that determines an annotator's verdicts, as plain data for a content address.

    A class that has a method ``description()`` says itself, as plain data, what its verdicts depend on. Any other
    object is described by its class, its code and its fields (its attributes, where it is no dataclass), and features
    also by their gold weights. A store is not part of a description.

    Raises:
        UserError: for an object that cannot be described; caching it could return another annotator's verdicts.
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
