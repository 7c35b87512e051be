"""A JSON schema of experiments for editors, made from the same signatures that check a YAML when it is run.

    farm config --schema > experiment.schema.json        then, in a YAML:  # yaml-language-server: $schema=...

Named configs are offered by name; where a spec names one, the keys of its class are offered and others are marked.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable
from typing import Any, Union

from pydantic import TypeAdapter

from farm.base.errors import UserError
from farm.experiments.experiment import Experiment
from farm.experiments.feedback import Asked, From
from farm.experiments.origins import MAPPINGS, ROLES
from farm.feedback.kind import kinds
from farm.roles import classes, config, named_configs
from farm.roles.config import ROOM
from farm.roles.protocols import World

JSON = dict[str, Any]


def experiment_schema() -> JSON:
    """The schema of an experiment's YAML, JSON Schema draft 2020-12."""
    schema = Experiment.model_json_schema(by_alias=True)
    definitions: JSON = schema.setdefault("$defs", {})
    properties = schema["properties"]
    for field, role in ROLES.items():
        about = {k: v for k, v in properties[field].items() if k in ("title", "description", "default")}
        nothing = [{"type": "null"}] if "null" in str(properties[field].get("anyOf")) else []
        bare = Experiment.model_fields[field].default
        named = bare if isinstance(bare, str) else None
        properties[field] = {**about, "anyOf": [_spec(role, definitions, bare=named is not None), *nothing]}
    for field, role in MAPPINGS.items():
        spec = {"anyOf": [_spec(role, definitions, bare=True), {"type": "null"}]}
        properties[field] = {"title": properties[field].get("title", field), "additionalProperties": spec}
        properties[field]["type"] = "object"
    properties["feedback"] |= {"properties": _feedback(definitions), "additionalProperties": False}
    schema["required"] = [name for name in schema.get("required", []) if name != "name"]  # the file's name serves
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "An experiment of feedback-farm"
    return schema


def _feedback(definitions: JSON) -> JSON:
    """What an entry of ``feedback`` may be, by its kind."""
    out: JSON = {}
    for name, kind in kinds().items():
        who = _spec(kind.giver, definitions)
        asked, given = (model.model_json_schema(by_alias=True) for model in (Asked, From))
        asked["properties"]["annotator"] = {"anyOf": [_spec(kind.giver, definitions, bare=True), {"type": "null"}]}
        asked["properties"]["design"] = {"enum": [*kind.designs, None]}
        out[name] = {"anyOf": [who, asked, given, {"type": "null"}]}
    return out


def _spec(role: Any, definitions: JSON, bare: bool = False) -> JSON:
    """What a spec of a role may be: a name, a path, or a mapping with ``use`` or ``class``."""
    name = role.__name__ + ("OrChanges" if bare else "")
    if name not in definitions:
        definitions[name] = {}  # a spec may hold specs of its own role
        definitions[name] = _of_role(role, definitions, bare)
    return {"$ref": f"#/$defs/{name}"}


def _of_role(role: Any, definitions: JSON, bare: bool) -> JSON:
    room = named_configs.names(ROOM[role])
    known: dict[str, list[str]] = {}
    for name in room:
        try:
            found = config.resolve(role, name)
            path = str(found.arguments["class"])
            cls = classes.import_class(path, role, found.origin, found.folder)
        except UserError:  # its package is not installed here
            continue
        known.setdefault(path, []).append(name)
        if path not in definitions:
            definitions[path] = {}
            definitions[path] = _of_class(cls, definitions)
        if role is World:
            presets = _names(named_configs.names("presets"))
            definitions[path]["properties"]["preset"] = {"anyOf": [*presets, {"type": "null"}]}
    choices = [
        {
            "if": {"properties": {"use": {"enum": names}}, "required": ["use"]},
            "then": {"$ref": f"#/$defs/{path}"},
        }
        for path, names in known.items()
    ]
    choices += [
        {
            "if": {"properties": {"class": {"const": path}}, "required": ["class"]},
            "then": {"$ref": f"#/$defs/{path}"},
        }
        for path in known
    ]
    mapping: JSON = {
        "type": "object",
        "properties": {
            "use": {"anyOf": _names(room)},
            "class": {"type": "string", "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"},
        },
    }
    if choices:
        mapping["allOf"] = choices
    if not bare:
        mapping["anyOf"] = [{"required": ["use"]}, {"required": ["class"]}]
    named: JSON = {"anyOf": _names(room)}
    return {"anyOf": [named, mapping]}


def _names(room: Iterable[str]) -> list[JSON]:
    file: JSON = {"type": "string", "pattern": r"\.ya?ml$"}
    return [{"enum": sorted(room)}, file] if room else [file]


def _of_class(cls: type, definitions: JSON) -> JSON:
    parameters, hints = config.signature(cls)
    supplied = ("world", "features", "store")
    properties: JSON = {"use": {"type": "string"}, "class": {"type": "string"}, "about": {"type": "string"}}
    for name, parameter in parameters.items():
        if name in supplied and hints.get(name) not in ROOM:
            continue
        properties[name] = _of_type(hints.get(name, Any), definitions)
        if parameter.default is not inspect.Parameter.empty and config.is_plain(parameter.default):
            default = parameter.default
            properties[name] = {**properties[name], "default": list(default) if isinstance(default, tuple) else default}
    documentation = inspect.getdoc(cls) or ""
    return {"description": documentation.split("\n\n")[0], "properties": properties, "additionalProperties": False}


def _of_type(hint: Any, definitions: JSON) -> JSON:
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    if any(_holds_role(option) for option in options):
        return {"anyOf": [_holding(option, definitions) for option in options]}
    try:
        schema = TypeAdapter(hint).json_schema()
    except Exception:  # a type that has no schema is checked when it is run
        return {}
    definitions.update(schema.pop("$defs", {}))
    return schema


def _holds_role(hint: Any) -> bool:
    return hint in ROOM if isinstance(hint, type) else any(_holds_role(a) for a in typing.get_args(hint))


def _holding(hint: Any, definitions: JSON) -> JSON:
    if isinstance(hint, type) and hint in ROOM:
        # A change inside a nested spec needs neither `use` nor `class`.
        return _spec(hint, definitions, bare=True)
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is dict and len(arguments) == 2 and _holds_role(arguments[1]):
        return {"type": "object", "additionalProperties": _holding(arguments[1], definitions)}
    if arguments and _holds_role(arguments[0]):
        return {"type": "array", "items": _holding(arguments[0], definitions)}
    return _of_type(hint, definitions)
