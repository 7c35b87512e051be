"""The resolved configuration of an experiment, and who said each value: which file, which setting, which default."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import yaml

from farm.experiments import presets
from farm.experiments.experiment import Experiment, Resources, Sizes, Study, load
from farm.experiments.feedback import asked_or_given
from farm.experiments.setting import describe
from farm.feedback.kind import kinds
from farm.roles import classes, config, named_configs
from farm.roles.config import ROOM, Preset, Resolved
from farm.roles.protocols import Aggregator, Annotator, Computation, Evaluator, Method, Reporter, World
from farm.roles.users import User

ROLES: dict[str, Any] = {
    "world": World,
    "sft": Method,
    "annotator": Annotator,
    "reward_model": Method,
    "preference_model": Method,
    "compute": Computation,
    "user": User,
    "evaluator": Evaluator,
    "aggregator": Aggregator,
    "reporter": Reporter,
}
"""fields of an experiment that are a spec -> their role"""
MAPPINGS: dict[str, Any] = {"models": Method, "methods": Method, "judges": Annotator}
"""fields that are a mapping of names to specs"""


@dataclass(frozen=True)
class Value:
    """A plain value and who said it."""

    value: Any
    origin: str


Tree = Value | dict[str, Any] | list[Any]
Said = Callable[[str], str]
"""the origin of the value at a path of the experiment, ``methods.ppo.beta``"""
DEFAULT = "default of the experiment"


def resolved(name: str, settings: Sequence[str] = (), seed: int | None = None) -> dict[str, Tree]:
    """Everything the experiment says, with every name followed and every default written out."""
    study = load(name, settings, seed)
    path = named_configs.find("experiments", name)
    written = named_configs.load_mapping(path)
    raw = config.override({"name": path.stem, **written}, settings)
    changed = [s.partition("=")[0] for s in settings]
    return tree(study, raw, written, changed, named_configs.shown_path(path), seed)


def tree(
    study: Study, raw: dict[str, Any], written: dict[str, Any], changed: Sequence[str], file: str, seed: int | None
) -> dict[str, Tree]:
    """The same of a study that is there already.

    Args:
        raw: what was said of it, settings included; ``written`` is without them.
        changed: the keys of the settings.
        file: what to call the place where it is written.

    Raises:
        UserError: for a key that no class knows, in any variant.
    """
    for variant in study.variants:
        describe(variant.experiment, study.origin)
    if seed is not None:
        raw = {**raw, "seed": seed}
        raw.pop("seeds", None)

    preset = presets.of(study.whole.world, study.origin)
    fitting = preset.settings if preset else None
    given = raw.get("sizes") or {}
    raw = presets.filled(raw, preset)

    def unsaid(place: str) -> str:
        theirs = {**preset.experiment, "world": preset.world} if preset else {}
        return preset.settings.origin if preset and _there(theirs, place) else DEFAULT

    def said(place: str) -> str:
        for key in changed:
            if place == key or place.startswith(key + "."):
                return f"--set {key}"
        if place == "seed" and seed is not None:
            return "--seed"
        if _there(written, place):
            return file
        return unsaid(place)

    filled = study.whole.model_dump(mode="json")
    out: dict[str, Tree] = {}
    for field in Experiment.model_fields:
        value = raw.get(field, filled[field])
        if field in ROLES and value is not None:
            default = Experiment.model_fields[field].default
            if isinstance(value, dict) and "use" not in value and "class" not in value and isinstance(default, str):
                value = {"use": default, **value}
            out[field] = _spec(ROLES[field], value, study.origin, field, said, fitting)
        elif field in MAPPINGS and isinstance(value, Mapping):
            out[field] = {
                n: _spec(MAPPINGS[field], _named(n, spec), study.origin, f"{field}.{n}", said, fitting)
                for n, spec in value.items()
            }
        elif field == "sizes":
            out[field] = {
                k: Value(filled["sizes"][k], (said if k in given else unsaid)(f"sizes.{k}")) for k in Sizes.model_fields
            }
        elif field == "feedback":
            if value:
                out[field] = {kind: _feedback(kind, entry, study.origin, said) for kind, entry in value.items()}
        elif field == "responses":
            plainly = study.whole.responses.model_dump(mode="json", by_alias=True)
            out[field] = {k: Value(v, said(f"{field}.{k}")) for k, v in plainly.items()}
        elif field == "resources":
            if value:
                names = Resources.model_fields
                out[field] = {
                    k: {f: Value(filled[field][k][f], said(f"{field}.{k}")) for f in names} for k in filled[field]
                }
        elif field == "name" and "name" not in written:
            out[field] = Value(filled[field], f"the name of {file}")
        else:
            out[field] = Value(filled[field], said(field))
    return out


def _feedback(kind: str, entry: Any, origin: str, said: Said) -> Tree:
    """One entry of ``feedback``: whoever gives it followed, and everything else as it stands."""
    place = f"feedback.{kind}"
    parsed = asked_or_given(entry, f"{origin}: {place}")
    if isinstance(entry, str) or (isinstance(entry, dict) and {"use", "class"} & set(entry)):
        return _spec(kinds()[kind].giver, entry, origin, place, said, None)
    out: dict[str, Tree] = {}
    for key, value in parsed.model_dump(mode="json", by_alias=True).items():
        if key == "annotator" and value is not None and (isinstance(value, str) or {"use", "class"} & set(value)):
            out[key] = _spec(kinds()[kind].giver, value, origin, f"{place}.{key}", said, None)
        else:
            out[key] = Value(value, said(f"{place}.{key}"))
    return out


def _there(data: Mapping[str, Any], place: str) -> bool:
    """Whether nested mappings have a value at a path."""
    top: Any = data
    for part in place.split("."):
        top = top.get(part, ...) if isinstance(top, Mapping) else ...
    return top is not ...


def _named(name: str, spec: Any) -> Any:
    if spec is None:
        return {"use": name}
    if isinstance(spec, dict) and "use" not in spec and "class" not in spec:
        return {"use": name, **spec}
    return spec


def _spec(role: Any, spec: Any, origin: str, place: str, said: Said, preset: Preset | None) -> Tree:
    """A spec in the experiment itself: its own keys were said there."""
    own = {k: said(f"{place}.{k}") for k in spec} if isinstance(spec, dict) else {}
    own = {k: v if v != DEFAULT else said(place) for k, v in own.items()}
    return _followed(role, spec, origin, own, said(place), None, preset)


def _followed(
    role: Any, spec: Any, origin: str, own: Mapping[str, str], whole: str, folder: Path | None, preset: Preset | None
) -> Tree:
    found = config.resolve(role, spec, origin, folder, preset)
    arguments = found.arguments
    cls = classes.import_class(str(arguments["class"]), role, found.origin, found.folder)
    parameters, hints = config.signature(cls)

    def said(key: str) -> str:
        return found.said.get(key, own.get(key, whole))

    out: dict[str, Tree] = {"class": Value(arguments["class"], said("class"))}
    if role is World and "preset" in arguments:
        out["preset"] = Value(arguments["preset"], said("preset"))
    for name, parameter in parameters.items():
        if name in arguments:
            out[name] = _argument(hints.get(name, Any), arguments[name], found, said(name), preset)
        elif parameter.default is not inspect.Parameter.empty and config.is_plain(parameter.default):
            out[name] = Value(parameter.default, f"default of {cls.__name__}")
    return out


def _argument(hint: Any, value: Any, found: Resolved, said: str, preset: Preset | None) -> Tree:
    nothing: dict[str, str] = {}
    inside = (found.origin, nothing, said, found.folder, preset)
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        role = option if isinstance(option, type) and option in ROOM else None
        if role and value is not None:
            return _followed(role, value, *inside)
        inner = typing.get_args(option)
        if isinstance(value, list) and inner and inner[0] in ROOM:
            return [_followed(inner[0], item, *inside) for item in value]
        if isinstance(value, dict) and len(inner) == 2 and inner[1] in ROOM:
            return {n: _followed(inner[1], item, *inside) for n, item in value.items()}
    return Value(value, said)


def plain(tree: Tree | dict[str, Tree]) -> Any:
    """As data: every value beside its origin."""
    if isinstance(tree, Value):
        return {"value": tree.value, "origin": tree.origin}
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    return {k: plain(v) for k, v in tree.items()}


def values(tree: Tree | dict[str, Tree]) -> Any:
    """As data, without the origins: it can be run itself."""
    if isinstance(tree, Value):
        return tree.value
    if isinstance(tree, list):
        return [values(item) for item in tree]
    return {k: values(v) for k, v in tree.items()}


def text(tree: dict[str, Tree]) -> str:
    """As YAML that can be run, each value with its origin as a comment."""
    rows = list(_rows(tree, 0))
    width = min(max((len(line) for line, _ in rows), default=0), 60)
    return "\n".join(f"{line:<{width}}  # {origin}" if origin else line for line, origin in rows)


def _rows(tree: Tree | dict[str, Tree], depth: int) -> Any:
    indent = "  " * depth
    if isinstance(tree, list):
        for item in tree:
            rows = list(_rows(item, depth + 1))
            first, origin = rows[0]
            yield f"{indent}- {first.strip()}", origin
            yield from rows[1:]
        return
    assert isinstance(tree, dict)
    for key, value in tree.items():
        if isinstance(value, Value):
            yield f"{indent}{_inline(key)}: {_inline(value.value)}", value.origin
        elif not value:
            yield f"{indent}{_inline(key)}: " + ("[]" if isinstance(value, list) else "{}"), ""
        else:
            yield f"{indent}{_inline(key)}:", ""
            yield from _rows(value, depth + 1)


def _inline(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    shown = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).strip()
    return shown.removesuffix("\n...").removesuffix("...").strip()
