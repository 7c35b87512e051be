"""Feedback farm: simulate human feedback, learn from it, and measure how far the result would hold with people.

The ground of the house (docs/architecture.md): records and randomness, the store, formats, protocols and
configuration, models and policies, worlds, the experiment loop, and the command line. It imports no wing.

``from farm import run, annotate, evaluate, leaderboard, report`` mirrors the command line (farm.api).
"""

import os as _os
from pathlib import Path as _Path

__version__ = "0.1.0"

# Threads of torch that wait for each other in a loop get nothing done where another process uses a core. This is read
# when torch is imported; what the user has set stands.
_os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __getattr__(name: str) -> object:
    """The functions that mirror the command line, imported when they are asked for."""
    here = _Path(__file__).parent
    if name.startswith("_") or (here / f"{name}.py").is_file() or (here / name).is_dir():
        raise AttributeError(name)  # a module of ours, which the import system finds
    from farm.base import platforms

    platforms.check()
    from farm import api

    return api.named(name)


def __dir__() -> list[str]:
    """What tab completion offers: the functions too, which are imported when they are asked for."""
    from farm import api

    return sorted({*globals(), *api.names()})
