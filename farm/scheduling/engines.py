"""The engines by name."""

from __future__ import annotations

import os
from pathlib import Path

from farm.base.errors import OptionError, nearest
from farm.scheduling.scheduler import StageEngine

NAMES = ("here", "local", "ray")


def engine(name: str, root: Path, workers: int | None = None) -> StageEngine:
    """An engine for stages below the artifact folder ``root``.

    Args:
        name: "here", "local" or "ray".
        root: the artifact folder; for "ray" one that every machine sees under this path.
        workers: processes of "local"; stages under way at once on "ray".
    """
    if workers is not None and workers < 1:
        raise OptionError("`workers` must be at least 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # by torchrun or accelerate launch
        from farm.scheduling.in_step import InStep

        if name != "here":
            raise OptionError(f"`engine` {name}: under torchrun or accelerate launch stages are made here")
        return InStep(root)
    if name == "here":
        from farm.scheduling.here import Here

        if workers is not None and workers > 1:
            raise OptionError("`workers` belongs to `engine` local or ray")
        return Here(root)
    if name == "local":
        from farm.scheduling.local import Local

        return Local(root, workers or os.cpu_count() or 1)
    if name == "ray":
        from farm.scheduling.on_ray import OnRay

        return OnRay(root, workers)
    raise OptionError(f"`engine` {name}: there is no such engine; {nearest(name, NAMES)}")
