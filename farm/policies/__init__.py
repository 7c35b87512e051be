"""Policies and scorers: a softmax table for known answers, and any transformers language model.

A saved one is a folder with ``farm_policy.json``, which names its class, beside safetensors. :func:`load` opens it.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from farm.base.errors import UserError, brief
from farm.hardware.device import Device, using
from farm.roles.classes import import_class
from farm.roles.protocols import Policy, PreferenceModel, SamplingEngine, Scorer

DESCRIPTOR = "farm_policy.json"

KNOWN: dict[str, str] = {
    "TabularPolicy": "farm.policies.tabular.TabularPolicy",
    "TabularScorer": "farm.policies.tabular.TabularScorer",
    "LanguageModelPolicy": "farm.policies.language_model.LanguageModelPolicy",
    "LanguageModelScorer": "farm.policies.scorer.LanguageModelScorer",
}
"""Short names of the classes of the ground; any other class is named by its import path."""


def write_descriptor(folder: Path, cls: type, settings: dict[str, Any]) -> None:
    """Make ``folder`` and write the file that names the class and its settings (plain JSON data)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = f"{cls.__module__}.{cls.__qualname__}"
    name = next((short for short, full in KNOWN.items() if full == path), path)
    text = json.dumps({"class": name, **settings}, indent=1, ensure_ascii=False)
    (folder / DESCRIPTOR).write_text(text + "\n", encoding="utf-8")


def read_descriptor(folder: Path) -> dict[str, Any]:
    """The settings in ``folder``, ``class`` among them. Raises UserError if it holds no saved policy."""
    path = folder / DESCRIPTOR
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no saved policy or scorer is here ({DESCRIPTOR} is missing)") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("class"), str):
        raise UserError(f"{path}: `class` is missing; save the policy again")
    return data


_ENGINE: ContextVar[SamplingEngine | None] = ContextVar("engine", default=None)


def engine_of_loading() -> SamplingEngine | None:
    """Who is to sample for a policy that is being loaded, also where it is part of another one."""
    return _ENGINE.get()


def load(
    folder: Path | str, engine: SamplingEngine | None = None, device: Device | None = None
) -> Policy | Scorer | PreferenceModel:
    """The policy, scorer or preference model that was saved in ``folder``.

    ``engine`` samples for its language models. A saved policy names none: a file from another person must not say
    to which server texts, weights and a key are sent. They are put on ``device``, or where models are put
    (:mod:`farm.hardware.device`).

    The class is one of :data:`KNOWN` or an import path of a class that fulfils one of these roles and has a classmethod
    ``load(folder)``. Only safetensors and JSON are read.

    Raises:
        UserError: if the folder holds none, a file of it is missing or damaged, or the class cannot play the role.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    named = str(read_descriptor(folder)["class"])
    path, origin = KNOWN.get(named, named), str(folder / DESCRIPTOR)
    cls = _import(path, origin)
    if not hasattr(cls, "load"):
        raise UserError(f"{origin}: class `{path}` has no classmethod `load`, so it cannot be opened again")
    before = _ENGINE.set(_ENGINE.get() if engine is None else engine)
    try:
        with using(device):
            loaded: Policy | Scorer | PreferenceModel = cls.load(folder)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        said = brief(str(error).strip().split("\n")[0], 120)
        raise UserError(f"{folder}: a file of the saved {named} is missing or damaged ({said})") from error
    finally:
        _ENGINE.reset(before)
    return loaded


def _import(path: str, origin: str) -> type:
    for role in (Policy, Scorer):
        try:
            return import_class(path, role, origin)
        except UserError:
            continue
    return import_class(path, PreferenceModel, origin)


__all__ = ["DESCRIPTOR", "KNOWN", "load", "read_descriptor", "write_descriptor"]
