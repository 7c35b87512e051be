"""The engines by name."""

from __future__ import annotations

import os
from pathlib import Path

from farm.base import platforms
from farm.base.errors import OptionError, nearest
from farm.scheduling.environment import gpus
from farm.scheduling.graph import Graph
from farm.scheduling.scheduler import StageEngine

NAMES = ("here", "local", "ray")


def engine(name: str, root: Path, workers: int | None = None, graph: Graph | None = None) -> StageEngine:
    """An engine for stages below the artifact folder ``root``.

    Args:
        name: "here", "local" or "ray".
        root: the artifact folder; for "ray" one that every machine sees under this path.
        workers: processes of "local"; stages under way at once on "ray". Left out, "local" has as many as there are
            GPUs where a stage of the ``graph`` wants one, or else as many as there are cores.
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

        return Local(root, workers or places(graph or {}))
    if name == "ray":
        from farm.scheduling.on_ray import OnRay

        return OnRay(root, workers)
    raise OptionError(f"`engine` {name}: there is no such engine; {nearest(name, NAMES)}")


def places(graph: Graph) -> int:
    """How many stages are made at once on this machine: one a GPU where they want GPUs, else one a core."""
    there = len(gpus())
    return there if any(node.gpus_of(there) for node in graph.values()) and there else platforms.cores()
