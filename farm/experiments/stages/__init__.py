"""The stages of an experiment, one file each; :mod:`farm.experiments.stages.stage` says what a stage is.

    sft ─▶ responses ─▶ feedback (one a kind) ─▶ models ─▶ method ─▶ its answers ─▶ the verdict of each judge on them
     └──────────────────────────────────────────────────────┘
(Where there is a user, each method and SFT also have their dialogues with held-out users.)

A new stage is a new file here and a stage that reads it: the plan, the forecast, the status and the engines go over
what a stage declares.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache


@cache
def kinds() -> tuple[str, ...]:
    """The kinds of all stages in this folder."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    found = [getattr(thing, "kind", None) for module in modules for thing in vars(module).values()]
    return tuple(dict.fromkeys(kind for kind in found if isinstance(kind, str)))
