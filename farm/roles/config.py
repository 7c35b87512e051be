"""Specs: named parts of YAML, and classes whose signature is their schema.

A *spec* says which class plays a role and with what arguments:

    training                                # the named config configs/annotators/training.yaml
    {use: training, rate: 0.1}              # the same with a changed argument
    {class: annotators.noise.flip.Flip, rate: 0.1, annotator: evaluation}

:func:`build` turns a spec into an object. The constructor's signature is the schema: an unknown key, a missing one or a
value of the wrong type is refused with the file and the key. An argument whose type is a role (``annotator:
Annotator``) takes a spec in turn. Arguments the YAML does not set and that are named like a field of
:class:`~farm.roles.protocols.Context` (``world``, ``features``, ``store``) are supplied by the program.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, TypeVar, Union

from pydantic import BaseModel, TypeAdapter, ValidationError

from farm.base import bounds, files
from farm.base.errors import UserError, nearest, shown
from farm.roles import named_classes, named_configs
from farm.roles.classes import import_class
from farm.roles.givers import GIVERS
from farm.roles.protocols import (
    Aggregator,
    Computation,
    Context,
    Evaluator,
    Features,
    Measure,
    Method,
    Policy,
    Reporter,
    SamplingEngine,
    World,
)
from farm.roles.users import User

Spec = str | dict[str, Any]
Role = TypeVar("Role")
Model = TypeVar("Model", bound=BaseModel)

ROOM: dict[Any, str] = {
    **dict.fromkeys(GIVERS, "annotators"),
    Method: "methods",
    World: "worlds",
    Evaluator: "evaluators",
    Reporter: "reporters",
    Aggregator: "aggregators",
    Features: "features",
    Policy: "policies",
    SamplingEngine: "engines",
    Measure: "measures",
    Computation: "computations",
    User: "users",
}
"""The folder of named configs of each role."""


@dataclass(frozen=True)
class Preset:
    """What fits a world: settings of its methods, between a class's own defaults and what an experiment says."""

    origin: str
    """its file"""
    fields: Mapping[str, Any]
    """applied to every method whose class has the field"""
    methods: Mapping[str, Mapping[str, Any]]
    """name of a method -> changes of what is found under that name"""


@dataclass(frozen=True)
class Resolved:
    """A spec with its names followed."""

    arguments: dict[str, Any]
    """with ``class``"""
    origin: str
    """where it was said, for errors"""
    folder: Path | None
    """in which a module beside it may lie"""
    said: dict[str, str]
    """argument -> the file that said it, of all that the spec itself does not say"""
    preset: str | None = None
    """the file among them that is a preset"""

    def place(self, key: str) -> str:
        """Where an argument was said, for errors."""
        return self.preset if self.preset is not None and self.said.get(key) == self.preset else self.origin


def override(data: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of ``data`` with ``a.b=c`` settings applied; values are YAML.

    >>> override({"a": {"b": 1}}, ["a.b=2", "c=[1, x]"])
    {'a': {'b': 2}, 'c': [1, 'x']}
    """
    import copy

    out = copy.deepcopy(data)
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise UserError(f"--set {setting}: write it as key=value or a.b=value")
        put(out, path, named_configs.parse_yaml(value, f"--set {setting}"), f"--set {setting}")
    return out


def put(data: dict[str, Any], path: str, value: Any, origin: str) -> None:
    """Set the value at a path ``a.b`` of nested mappings, in place; a spec given by name becomes a mapping first."""
    *parents, last = path.split(".")
    place = data
    for name in parents:
        below = place.get(name)
        if isinstance(below, str):  # a spec given by name becomes the same name with changed arguments
            below = {"use": below}
        elif below is None:
            below = {}
        elif not isinstance(below, dict):
            raise UserError(f"{origin}: `{name}` is not a mapping")
        place[name] = below
        place = below
    place[last] = value


def with_paths(value: Any) -> Any:
    """Plain data with every class in it as its import path."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return {str(k): with_paths(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_paths(v) for v in value]
    return value


def spec_of(given: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A spec from a name, a path, a class or a mapping, with changed arguments (nested ones as ``a.b``)."""
    if isinstance(given, type):
        spec: dict[str, Any] = {"class": with_paths(given)}
    elif isinstance(given, Mapping):
        spec = with_paths(given)
    else:
        spec = {"use": str(given)}
    for key, value in changes.items():
        put(spec, key, with_paths(value), "the settings")
    return spec


def validate(model: type[Model], data: Mapping[str, Any], origin: str) -> Model:
    """``data`` as a pydantic model; every mistake becomes one sentence with the file and the key."""
    _refuse_nan(data, origin)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(_first_error(error, origin, model)) from error


def _refuse_nan(data: Any, origin: str, key: str = "") -> None:
    """Refuse what is no number wherever it stands in settings: a comparison with it is false, so no check sees it."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            _refuse_nan(value, origin, f"{key}.{name}" if key else str(name))
    elif isinstance(data, (list, tuple)):
        for value in data:
            _refuse_nan(value, origin, key)
    elif isinstance(data, float) and data != data:
        raise UserError(f"{origin}: `{key}` = .nan is wrong: it is not a number")


def _fields(model: type[BaseModel], place: Iterable[Any]) -> Iterable[str]:
    """The keys known at a place inside a model: those of the model that stands there."""
    current: Any = model
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            names = {field.alias or name: field.annotation for name, field in current.model_fields.items()}
            current = names.get(str(part))
        else:  # a key of a mapping of models
            current = next(iter(typing.get_args(current)[1:]), None)
        options = [o for o in typing.get_args(current) if isinstance(o, type) and issubclass(o, BaseModel)]
        if typing.get_origin(current) in (Union, types.UnionType) and options:
            current = options[0]
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [field.alias or name for name, field in current.model_fields.items()]
    return model.model_fields


def _first_error(error: ValidationError, origin: str, model: type[BaseModel]) -> str:
    first = error.errors()[0]
    known = _fields(model, first["loc"][:-1])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{origin}: unknown key `{key}`; {nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"{origin}: `{key}` is missing"
    return f"{origin}: {bounds.wrong('', first)}"


def resolve(
    role: type,
    spec: Spec,
    origin: str = "",
    folder: Path | None = None,
    preset: Preset | None = None,
    within: tuple[Path, ...] = (),
) -> Resolved:
    """A spec with its names followed, later ones over earlier ones: the preset's fields, then for each name along
    ``use`` its file and the preset's entry, then the spec itself. A preset is for methods; other roles have none."""
    room = ROOM.get(role, "annotators")  # a role that is not of the house gives feedback of a kind of another package
    preset = preset if role is Method else None
    if folder is None and origin and files.exists(Path(origin)):
        folder = Path(origin).parent
    if isinstance(spec, str):
        spec = {"use": spec}
    if not isinstance(spec, dict):
        raise UserError(f"{origin}: expected a name or a mapping for {role.__name__}, found {shown(spec)}")
    _refuse_nan({k: v for k, v in spec.items() if k != "use"}, origin)
    source = preset.origin if preset else None
    if "use" in spec:
        name = str(spec["use"])
        changes = {k: v for k, v in spec.items() if k != "use"}
        named_class = None if name in named_configs.named(room) else named_classes.find(room, name)
        if named_class is not None:
            inner = resolve(role, {"class": named_class.path}, origin, folder, preset)
            label, here = named_class.label, f"{origin} ({name})" if origin else name
            inside = {"class"}
        else:
            path = named_configs.find(room, name)
            if path in within:
                raise UserError(f"{path}: uses itself")
            written = named_configs.load_mapping(path)
            inner = resolve(role, written, str(path), path.parent, preset, (*within, path))
            label, here = named_configs.shown_path(path), f"{origin} ({path.name})" if origin and changes else str(path)
            inside = set(written)
        entry = preset.methods.get(name, {}) if preset else {}
        said = {**inner.said, **dict.fromkeys(inside - {"use"}, label), **dict.fromkeys(entry, source or "")}
        arguments = _changed(_changed(inner.arguments, entry), changes)
        return Resolved(arguments, here, inner.folder, {k: v for k, v in said.items() if k not in changes}, source)
    if "class" not in spec:
        raise UserError(f"{origin}: `class` (an import path) or `use` (a named config of {room}) is missing")
    fitting: dict[str, Any] = {}
    if preset is not None:
        known, _ = signature(import_class(str(spec["class"]), role, origin, folder))
        fitting = {k: v for k, v in preset.fields.items() if k in known and k not in spec}
    return Resolved({**fitting, **spec}, origin, folder, dict.fromkeys(fitting, source or ""), source)


def _changed(arguments: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with some changed; a change inside a nested spec leaves the rest of that spec as it is."""
    out = dict(arguments)
    for key, value in changes.items():
        before = out.get(key)
        nested = isinstance(value, dict) and not {"use", "class"} & set(value)
        if nested and isinstance(before, dict) and {"use", "class"} & set(before):
            out[key] = _changed(before, value)
        elif nested and isinstance(before, str):
            out[key] = {"use": before, **value}
        else:
            out[key] = value
    return out


def build(
    role: type[Role],
    spec: Spec,
    context: Context | None = None,
    origin: str = "",
    folder: Path | None = None,
    preset: Preset | None = None,
) -> Role:
    """The object a spec describes; a ``preset`` changes the methods in it.

    Raises:
        UserError: naming the file and key, for anything wrong in the spec.
    """
    found = resolve(role, spec, origin, folder, preset)
    origin, folder = found.origin, found.folder
    cls = import_class(str(found.arguments["class"]), role, origin, folder)
    arguments = _own(role, found)
    parameters, hints = signature(cls)
    context = context or Context()
    supplied = {f.name: getattr(context, f.name) for f in dataclass_fields(context)}
    values: dict[str, Any] = {}
    for key, value in arguments.items():
        place = found.place(key)
        if key not in parameters:
            raise _unknown(place, key, cls, parameters)
        if key in supplied and _role_of(hints.get(key)) is None:
            raise UserError(f"{place}: `{key}` of {cls.__name__} is supplied by the program and cannot be set")
        values[key] = _value(hints.get(key, Any), value, context, place, key, folder, preset)
    for name, parameter in parameters.items():
        if name in values:
            continue
        if supplied.get(name) is not None:
            values[name] = supplied[name]
        elif parameter.default is inspect.Parameter.empty:
            hint = " (an experiment's, or the one that an option names)" if name in supplied else ""
            raise UserError(f"{origin}: `{name}` of {cls.__name__} is missing{hint}")
    try:
        return typing.cast(Role, cls(**values))
    except ValueError as error:  # a class may check its own arguments further
        raise UserError(f"{origin}: {cls.__name__}: {error}") from error


def signature(cls: type) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """The arguments of a constructor, which are the schema of its class in YAML, and their types.

    Settings that a class inherits and does not read are none of it: they stand in its ``unused_settings``, a mapping of
    their names to why (a clause), so that nobody sets what changes nothing.
    """
    parameters = {
        n: p
        for n, p in inspect.signature(cls).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n not in _unused(cls)
    }
    if hasattr(cls, "__dataclass_fields__"):
        return parameters, bounds.hints(cls)
    return parameters, typing.get_type_hints(vars(cls).get("__init__", cls), include_extras=True)


def _unused(cls: type) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(cls, "unused_settings", {})
    return found


def _unknown(place: str, key: str, cls: type, known: Iterable[str]) -> UserError:
    if why := _unused(cls).get(key):
        return UserError(f"{place}: `{key}` would change nothing of {cls.__name__}: {why}; leave it out")
    return UserError(f"{place}: unknown key `{key}` of {cls.__name__}; {nearest(key, known)}")


def _role_of(hint: Any) -> type | None:
    return hint if isinstance(hint, type) and hint in ROOM else None


def _value(
    hint: Any, value: Any, context: Context, origin: str, key: str, folder: Path | None, preset: Preset | None
) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        role = _role_of(option)
        if role and value is not None:
            where = f"{origin}: `{key}`" if isinstance(value, dict) else origin
            return build(role, value, context, where, folder, preset)
        arguments = typing.get_args(option)
        if typing.get_origin(option) in (list, tuple) and arguments and (role := _role_of(arguments[0])):
            if not isinstance(value, list):
                raise UserError(f"{origin}: `{key}` must be a list")
            items: list[Any] = [
                build(role, item, context, f"{origin}: `{key}`[{i}]", folder, preset) for i, item in enumerate(value)
            ]
            return items if typing.get_origin(option) is list else tuple(items)
        if typing.get_origin(option) is dict and len(arguments) == 2 and (role := _role_of(arguments[1])):
            if not isinstance(value, dict):
                raise UserError(f"{origin}: `{key}` must be a mapping")
            where = f"{origin}: `{key}"
            return {n: build(role, item, context, f"{where}.{n}`", folder, preset) for n, item in value.items()}
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise UserError(_wrong_argument(error, hint, origin, key)) from error


def _wrong_argument(error: ValidationError, hint: Any, origin: str, key: str) -> str:
    """One sentence about an argument: the place inside it, and nothing of the rest, which may hold an address."""
    errors = error.errors()
    unknown = [e for e in errors if e["type"] == "unexpected_keyword_argument"]
    first = (unknown or errors)[0]
    place = ".".join([key, *map(str, first["loc"])])
    if unknown:
        known = _keys_at(hint, first["loc"][:-1])
        return f"{origin}: unknown key `{place}`; {nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"{origin}: `{place}` is missing"
    return f"{origin}: {bounds.wrong(key, bounds.mistake(hint, errors))}"


def _keys_at(hint: Any, place: Iterable[Any]) -> list[str]:
    """The fields of the dataclass that stands at a place inside a type."""
    for part in place:
        inner = typing.get_args(hint)
        hint = typing.get_type_hints(hint).get(str(part)) if is_dataclass(hint) else inner[-1] if inner else None
    return [f.name for f in dataclass_fields(hint)] if is_dataclass(hint) else []


def _own(role: type, found: Resolved) -> dict[str, Any]:
    """The arguments of the class alone."""
    remarks = {"class", "about"} | ({"preset"} if role is World else set())
    return {k: v for k, v in found.arguments.items() if k not in remarks}


def described(
    role: type, spec: Spec, origin: str = "", folder: Path | None = None, preset: Preset | None = None
) -> dict[str, Any]:
    """A spec with every name, class and default written out, as plain data: what determined a result.

    Two specs that describe the same object give the same description, so it serves as a content address.
    """
    found = resolve(role, spec, origin, folder, preset)
    origin, folder = found.origin, found.folder
    cls = import_class(str(found.arguments["class"]), role, origin, folder)
    parameters, hints = signature(cls)
    out: dict[str, Any] = {"class": found.arguments["class"]}
    arguments = _own(role, found)
    for name, parameter in parameters.items():
        if name in arguments:
            out[name] = _described_value(hints.get(name, Any), arguments[name], found.place(name), folder, preset)
        elif parameter.default is not inspect.Parameter.empty and is_plain(parameter.default):
            out[name] = parameter.default
    unknown = set(arguments) - set(parameters)
    if unknown:
        key = sorted(unknown)[0]
        raise _unknown(found.place(key), key, cls, parameters)
    return out


def is_plain(value: Any) -> bool:
    """Whether a default can be written into YAML."""
    return value is None or isinstance(value, (str, int, float, bool, list, dict, tuple))


def _described_value(hint: Any, value: Any, origin: str, folder: Path | None, preset: Preset | None) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        role = _role_of(option)
        if role and value is not None:
            return described(role, value, origin, folder, preset)
        arguments = typing.get_args(option)
        if isinstance(value, list) and arguments and (role := _role_of(arguments[0])):
            return [described(role, item, origin, folder, preset) for item in value]
        if isinstance(value, dict) and len(arguments) == 2 and (role := _role_of(arguments[1])):
            return {n: described(role, item, origin, folder, preset) for n, item in value.items()}
    return value
