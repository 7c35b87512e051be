"""Presets: what fits a world. ``configs/presets/<world>.yaml``, which a world names as its ``preset``:

    use: smollm2                                  # what another preset says counts where this one says nothing
    world: {max_new_tokens: 64}                   # settings of the world, over those of its file
    experiment: {sft: null}                       # defaults of an experiment in this world
    fields: {batch_size: 32}                      # of every method whose class has the field
    methods: {ppo: {steps: 20, beta: 0.1}}        # of one method

A value is the last that says it of: the class, the preset's fields, then for each name along ``use`` its file and the
preset's entry, then the experiment and its settings. So ``methods: {ppo:}`` is PPO with what fits the world.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from farm.base import files
from farm.base.errors import UserError, nearest
from farm.roles import config, named_configs
from farm.roles.config import Spec
from farm.roles.protocols import World

_WHOLE = ("name", "about", "seed", "seeds", "sweep", "world", "methods")
"""What an experiment says for itself"""
_BY_KEY = ("sizes", "resources")
"""mappings whose keys have defaults of their own"""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    about: str = ""
    use: str | None = None
    world: dict[str, Any] = {}
    experiment: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    methods: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class WorldPreset:
    experiment: dict[str, Any]
    """defaults of an experiment"""
    settings: config.Preset
    """of its methods"""
    world: dict[str, Any]
    """settings of the world itself"""


def of(world: Any, origin: str) -> WorldPreset | None:
    """The preset that a world names; None where it names none.

    Raises:
        UserError: naming the file and key, for a preset that is not there or says what cannot be set.
    """
    if not isinstance(world, (str, dict)):
        return None  # refused, in one sentence, where the experiment is checked
    name = config.resolve(World, world, origin).arguments.get("preset")
    return None if name is None else load(str(name))


def load(name: str) -> WorldPreset:
    """A preset by name or path."""
    path = named_configs.find("presets", name)
    return _read(named_configs.shown_path(path), files.read_text(path))


@lru_cache(maxsize=16)
def _read(shown: str, text: str) -> WorldPreset:
    """A preset from its text; every variant of a sweep asks for the same."""
    file = config.validate(_File, named_configs.parse_yaml(text, shown), shown)
    for key in file.experiment:
        if key in _WHOLE:
            raise UserError(f"{shown}: `experiment.{key}` is for each experiment to say, not for a preset")
    known = named_configs.names("methods")
    for method, entry in file.methods.items():
        if method not in known:
            raise UserError(f"{shown}: methods: there is no method `{method}`; {nearest(method, known)}")
        if wrong := {"use", "class"} & set(entry):
            raise UserError(
                f"{shown}: methods.{method}: `{sorted(wrong)[0]}` cannot be changed by a preset; write a method of its "
                "own into configs/methods"
            )
    if file.use is None:
        return WorldPreset(file.experiment, config.Preset(shown, file.fields, file.methods), file.world)
    under = load(file.use)  # a preset that uses itself ends in Python's own limit, which says so
    methods = {**under.settings.methods}
    for method, entry in file.methods.items():
        methods[method] = {**methods.get(method, {}), **entry}
    settings = config.Preset(shown, {**under.settings.fields, **file.fields}, methods)
    return WorldPreset({**under.experiment, **file.experiment}, settings, {**under.world, **file.world})


def filled(data: dict[str, Any], preset: WorldPreset | None) -> dict[str, Any]:
    """What an experiment says, with the preset's defaults where it says nothing."""
    out = dict(data)
    for key, value in (preset.experiment if preset else {}).items():
        said = out.get(key)
        if key not in out:
            out[key] = copy.deepcopy(value)
        elif isinstance(said, dict) and key in _BY_KEY:
            out[key] = {**value, **said}
        elif isinstance(said, dict) and value is not None and key != "judges" and not {"use", "class"} & set(said):
            out[key] = {**_mapping(value), **said}  # changed arguments of the default
    if preset and preset.world:
        said = _mapping(out["world"])
        out["world"] = {**{k: said[k] for k in ("use", "class") if k in said}, **preset.world, **said}
        for key, value in preset.world.items():
            if isinstance(changed := said.get(key), dict) and not {"use", "class"} & set(changed):
                out["world"][key] = {**_mapping(value), **changed}  # `--set world.engine.memory=0.3`
    return out


def _mapping(spec: Spec) -> dict[str, Any]:
    return {"use": spec} if isinstance(spec, str) else spec
