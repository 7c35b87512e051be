"""Bounds of settings as types, so that a setting says itself what it may be.

    beta: NotNegative = 0.1        rate: Share = 0.25        prompts: Count | None = None

They are read where a class is built from YAML (:func:`farm.roles.config.build`), in the JSON schema of experiments, in
the options of a command (:mod:`farm.face.options`), and where Python makes an object directly: by :class:`Bounded` of a
dataclass, by :func:`bounded` of an ``__init__``.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from farm.base.errors import nearest, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter


P = ParamSpec("P")


class Finite(GroupedMetadata):
    """Neither infinite nor without a value."""

    def __iter__(self) -> Iterator[object]:
        from pydantic.types import AllowInfNan  # slow to import, and `farm --help` checks nothing

        yield AllowInfNan(False)


Count = Annotated[int, Ge(1)]
Several = Annotated[int, Ge(2)]
Natural = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
Number = Annotated[float, Finite()]
NotNegative = Annotated[float, Ge(0), Finite()]
Share = Annotated[float, Ge(0), Le(1)]
"""a share or a probability"""
PositiveShare = Annotated[float, Gt(0), Le(1)]
ErrorRate = Annotated[float, Ge(0), Lt(0.5)]
"""the share of labels that are wrong"""
Confidence = Annotated[float, Gt(0), Lt(1)]
Discount = Annotated[float, Ge(0), Lt(1)]


class Bounded:
    """A dataclass whose fields keep their bounds. A class that checks more calls this ``__post_init__`` first."""

    def __post_init__(self) -> None:
        check(self)


def bounded(init: Callable[P, None]) -> Callable[P, None]:
    """An ``__init__`` that refuses arguments outside the bounds of their types, as :func:`check` does fields."""
    signature = inspect.signature(init)

    @wraps(init)
    def called(*arguments: P.args, **keywords: P.kwargs) -> None:
        given = signature.bind(*arguments, **keywords).arguments
        kept = _kept(init)
        _refuse({name: kept[name] for name in given if name in kept}, given)
        init(*arguments, **keywords)

    return called


def check(settings: Any) -> None:
    """Refuse an object of a dataclass one of whose fields is outside the bounds of its type.

    Raises:
        ValueError: naming the field and its bound.
    """
    kept = _bounded(settings.__class__)
    _refuse(kept, {name: getattr(settings, name) for name in kept})


def _refuse(kept: Mapping[str, tuple[Any, TypeAdapter[Any]]], given: Mapping[str, Any]) -> None:
    from pydantic import ValidationError

    for name, (hint, adapter) in kept.items():
        try:
            adapter.validate_python(given[name])
        except ValidationError as error:
            raise ValueError(wrong(name, mistake(hint, error.errors()))) from error


def mistake(hint: Any, errors: Sequence[Any]) -> Mapping[str, Any]:
    """The first of pydantic's errors of a value; of one that may be of several kinds, what each of them would be."""
    kinds = typing.get_origin(hint) in (typing.Union, UnionType) and {len(e["loc"]) for e in errors} == {1}
    if not kinds or len(errors) == 1:
        return errors[0]
    said = [str(error["msg"]) for error in errors]
    return {**errors[0], "loc": (), "type": "union", "msg": ", or ".join(m[:1].lower() + m[1:] for m in said)}


def wrong(key: str, found: Mapping[str, Any]) -> str:
    """A clause on the value of a key, from what pydantic says of it."""
    place = ".".join([key, *map(str, found["loc"])] if key else map(str, found["loc"]))
    said = str(found["msg"])
    if found["type"] == "literal_error":
        said = nearest(str(found["input"]), re.findall("'(.*?)'", found["ctx"]["expected"]))
    return f"`{place}` = {shown(found.get('input'))} is wrong: {said[:1].lower()}{said[1:]}"


@cache
def hints(cls: Any) -> dict[str, Any]:
    """The types of a class's fields, bounds included. A field that a class restates without its bound keeps it."""
    found: dict[str, Any] = {}
    bare: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if own := vars(base).get("__annotations__"):
            bounded, plain = typing.get_type_hints(base, include_extras=True), typing.get_type_hints(base)
            restated = {name for name in own if bounded[name] == plain[name] == bare.get(name)}
            found |= {name: bounded[name] for name in own if name not in restated}
            bare |= {name: plain[name] for name in own}
    return found


@cache
def _bounded(cls: Any) -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    from pydantic import TypeAdapter

    bounded, plain = hints(cls), typing.get_type_hints(cls)
    own = ((f.name, bounded[f.name]) for f in fields(cls) if bounded[f.name] != plain[f.name])
    return {name: (hint, TypeAdapter(hint)) for name, hint in own}


@cache
def _kept(init: Callable[..., None]) -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    from pydantic import TypeAdapter

    hinted, plain = typing.get_type_hints(init, include_extras=True), typing.get_type_hints(init)
    return {name: (hint, TypeAdapter(hint)) for name, hint in hinted.items() if hint != plain[name]}
