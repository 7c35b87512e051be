"""The options of a command, said once: a frozen dataclass that the command line, Python and the core share.

    @dataclass(frozen=True, kw_only=True)
    class PlanOptions:
        flip_rate: ErrorRate = 0.0
        \"\"\"Share of labels that are flipped.\"\"\"

    @command(PlanOptions)                           # farm plan --flip-rate 0.1
    def plan(options: PlanOptions, as_json: ...) -> None: ...

    plan = takes(PlanOptions)(planned)              # farm.plan(flip_rate=0.1)

The docstring of a field is its help, its bound the range, its name with dashes the flag unless a :class:`Flag` says
another. The core raises :class:`~farm.base.errors.OptionError` with the names of Python; the command line puts its
flags in their place.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache, wraps
from itertools import pairwise
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar, Union

import typer

from farm.base import bounds
from farm.base.errors import OptionError, UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

P = ParamSpec("P")
O = TypeVar("O")  # noqa: E741
R = TypeVar("R")


@dataclass(frozen=True)
class Flag:
    """How a field is given on the command line, where its name and its type do not tell."""

    name: str | None = None
    metavar: str | None = None
    kind: Any = None
    """the type that is read there"""
    argument: bool = False
    """whether it is given by its place"""
    hidden: bool = False
    """whether Python alone has the field; a name is then what errors of the command line say of it"""


PYTHON_ONLY = Flag(hidden=True)


@dataclass(frozen=True)
class Listed:
    """Marks a tuple that may be given as one text: cut at its commas, or the only one."""

    commas: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema  # slow to import, and `farm --help` checks nothing

        def listed(given: Any) -> Any:
            if not isinstance(given, str):
                return given
            return [part.strip() for part in given.split(",")] if self.commas else [given]

        return core_schema.no_info_before_validator_function(listed, handler(source))


Repeated = Annotated[tuple[str, ...], Listed(commas=False)]


def command(options: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command, with a flag for each field in the place of its parameter ``options``."""

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())
        place = [parameter.name for parameter in own].index("options")
        before, after = own[:place], own[place + 1 :]

        @wraps(function)
        def called(**given: Any) -> None:
            kept = {parameter.name: given.pop(parameter.name) for parameter in (*before, *after)}
            try:
                said = made(options, {k: v for k, v in given.items() if v is not None and v != []})
                function(options=said, **kept)
            except OptionError as error:
                raise UserError(with_flags(str(error), options)) from error

        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*before, *_parameters(options), *after)]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return wrap


def takes(options: Callable[P, O]) -> Callable[[Callable[[O], R]], Callable[P, R]]:
    """Make a function of the options one of their fields, checked and converted: the function of Python."""
    signature = inspect.signature(options)

    def wrap(function: Callable[[O], R]) -> Callable[P, R]:
        @wraps(function)
        def called(*arguments: P.args, **keywords: P.kwargs) -> R:
            given = signature.bind(*arguments, **keywords).arguments
            return function(made(typing.cast(type[O], options), given))

        called.__signature__ = signature  # type: ignore[attr-defined]
        said = "\n".join(f"    {name}: {text}" for name, text in _docs(typing.cast(Any, options)).items())
        called.__doc__ = f"{inspect.getdoc(function)}\n\nArgs:\n{said}"
        return called

    return wrap


def made(options: type[O], given: Mapping[str, Any]) -> O:
    """The options with these fields.

    Raises:
        OptionError: naming the field that is out of its bounds, or not of its type.
    """
    from pydantic import ValidationError

    try:
        return typing.cast(O, _adapter(typing.cast(Any, options)).validate_python(dict(given)))
    except ValidationError as error:
        raise OptionError(bounds.wrong("", error.errors()[0])) from error


@cache
def _adapter(options: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(options)


def _parameters(options: Any) -> Iterator[inspect.Parameter]:
    """The fields as a command line reads them: a class's own before those it inherits."""
    hints, docs = typing.get_type_hints(options, include_extras=True), _docs(options)
    known = {field.name: field for field in fields(options)}
    assert set(known) == set(docs), "every option is documented"
    for name, text in docs.items():
        flag = _flag(hints[name])
        if flag.hidden:
            continue
        kind, optional, limits = _plain(hints[name])
        default = _default(known[name])
        info: Any
        if flag.argument:
            info = typer.Argument(metavar=flag.metavar, help=text)
        else:
            info = typer.Option(_name(name, flag), metavar=flag.metavar, help=text, **limits)
        kind = flag.kind or kind
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind | None if optional or default is None else kind, info],
        )


def _default(field: Field[Any]) -> Any:
    """What the command line shows as a default: nothing for an empty list."""
    if field.default is MISSING:
        return inspect.Parameter.empty
    return None if field.default == () else field.default


def _plain(hint: Any) -> tuple[Any, bool, dict[str, Any]]:
    """A type as the command line knows it, whether it may be None, and its least and largest value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, optional, limits = _plain(arguments[0])
        for said in arguments[1:]:
            limits |= {"min": said.ge} if hasattr(said, "ge") else {"max": said.le} if hasattr(said, "le") else {}
        return kind, optional, limits
    if origin in (Union, UnionType):
        kind, _, limits = _plain(next(a for a in arguments if a is not NoneType))
        return kind, NoneType in arguments, limits
    if origin is Literal:
        return str, False, {}
    return (list[str], False, {}) if origin is tuple else (hint, False, {})


def _flag(hint: Any) -> Flag:
    return next((said for said in getattr(hint, "__metadata__", ()) if isinstance(said, Flag)), Flag())


def _name(field: str, flag: Flag) -> str:
    return flag.name or f"--{field.replace('_', '-')}"


def with_flags(sentence: str, options: type[Any]) -> str:
    """A sentence in which flags stand for the names of fields in backticks."""
    hints = typing.get_type_hints(options, include_extras=True)
    known = {name: _flag(hint) for name, hint in hints.items()}
    flags = {n: _name(n, f) for n, f in known.items() if not f.argument and (f.name or not f.hidden)}
    return re.sub(r"`(\w+)(?:\.\w+)*`", lambda found: flags.get(found[1], found[0]), sentence)


@cache
def _docs(options: Any) -> dict[str, str]:
    """What stands below each field in the source of its class: a class's own fields first."""
    found: dict[str, str] = {}
    for cls in options.__mro__[:-1]:
        for name, text in _documented(cls.__module__).get(cls.__name__, {}).items():
            found.setdefault(name, text)
    return found


@cache
def _documented(module: str) -> dict[str, dict[str, str]]:
    """The docstrings of fields in the source of a module, by class."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                ast.unparse(field.target): " ".join(str(text.value.value).split())
                for field, text in pairwise(node.body)
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
                if isinstance(text.value, ast.Constant)
            }
    return found
