"""Stages on a Ray cluster: each is a task that occupies its CPUs and GPUs, wherever they are free.

The cluster must be there (``ray start --head`` and ``ray start --address=...``, or RAY_ADDRESS); where there is none,
one is started on this machine. All machines need this program, the experiment's files and FARM_HOME under the same
paths, in a shared folder: artifacts pass through it, not through Ray's object store, so that they outlive the cluster.
The store of answers is one SQLite file a machine (FARM_STORE), because SQLite's log does not work between machines.
Which servers, hub and prices are meant is sent (:mod:`farm.scheduling.environment`). Keys are taken from the
environment in which Ray was started; they are never sent.

When a node is lost, Ray runs its tasks again on another; a task that finds its stage done returns at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from farm.asking.limits import Limits
from farm.base.errors import need
from farm.scheduling.environment import search_path, settings
from farm.scheduling.graph import Node
from farm.scheduling.perform import Outcome

RETRIES = 5
"""of a task whose node or process is lost"""


class OnRay:
    """The engine of ``--engine ray``.

    Args:
        root: the artifact folder, seen by every machine under this path.
        at_once: tasks given to Ray at a time; what does not fit on the cluster waits there.
    """

    def __init__(self, root: Path, at_once: int | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise need("ray", "ray", "--engine ray") from error
        self.ray, self.root = ray, root.resolve()
        self.slots = at_once or 1000
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._own = not ray.is_initialized()
        if self._own:
            with contextlib.suppress(ConnectionError):
                ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
            if not ray.is_initialized():  # no cluster runs: this machine alone
                ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        self._task = ray.remote(_made)
        self._running: dict[Any, Node] = {}

    def start(self, node: Node, again: bool, limits: Limits) -> None:
        options = {
            "num_cpus": node.cpus,
            "num_gpus": node.gpus,
            "max_retries": RETRIES,
            "name": node.name,
            "runtime_env": {"env_vars": _environment(self.root, node)},
        }
        reference = self._task.options(**options).remote(str(self.root), node, again, limits, os.getcwd())
        self._running[reference] = node

    def finished(self) -> list[Outcome]:
        ready, _ = self.ray.wait(list(self._running), num_returns=1, timeout=None)
        more, _ = self.ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        outcomes = []
        for reference in {*ready, *more}:
            node = self._running.pop(reference)
            try:
                outcomes.append(self.ray.get(reference))
            except self.ray.exceptions.RayError as error:
                said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                outcomes.append(Outcome(node.key, f"Ray could not make it, after {RETRIES} more attempts: {said}"))
        return outcomes

    def close(self) -> None:
        for reference in self._running:
            with contextlib.suppress(self.ray.exceptions.RayError):
                self.ray.cancel(reference, force=True)
        self._running = {}
        if self._own:
            self.ray.shutdown()


def _environment(root: Path, node: Node) -> dict[str, str]:
    """What a worker must know; the same for all stages of as many CPUs, so that workers are used again."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, int(node.cpus)))
    return {
        "FARM_HOME": str(root.parent),
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": search_path(),
        "HF_HUB_OFFLINE": "0",
        **settings(),
    }


def _made(root: str, node: Node, again: bool, limits: Limits, folder: str) -> Outcome:
    """One stage, in a process of the cluster."""
    import platform

    from farm.base import progress
    from farm.scheduling.perform import perform

    os.chdir(folder)  # paths in the YAML are relative to where the run was started
    os.environ.setdefault("FARM_STORE", str(Path(root).parent / f"store-{platform.node()}.sqlite"))
    with progress.quiet():
        return perform(Path(root), node, again, limits)
