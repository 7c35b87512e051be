"""Stages on a Ray cluster: each is a task that occupies its CPUs and GPUs, wherever they are free.

The cluster must be there (``ray start --head`` and ``ray start --address=...``, or RAY_ADDRESS); where there is none,
one is started on this machine. All machines need this program, the experiment's files and FARM_HOME under the same
paths, in a shared folder: artifacts pass through it, not through Ray's object store, so that they outlive the cluster.
The store of answers is one SQLite file a machine (FARM_STORE), because SQLite's log does not work between machines.
Which servers, hub and prices are meant is sent (:mod:`farm.scheduling.environment`). Keys are taken from the
environment in which Ray was started; they are never sent.

When a node is lost, Ray runs its tasks again on another; a task that finds its stage done returns at once.

A stage that holds a model occupies one GPU where the cluster has any, unless ``resources`` says otherwise (0 hides
them). One that asks for several is trained by Ray Train in as many processes (NOT RUN on a cluster with GPUs).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from farm.asking.limits import Limits
from farm.base.errors import need
from farm.scheduling.environment import search_path, settings
from farm.scheduling.graph import Node
from farm.scheduling.perform import Outcome

RETRIES = 5
"""of a task whose node or process is lost"""
WAIT = 7 * 86400
"""seconds that one process may wait for another"""


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
        self._gpus = float(ray.cluster_resources().get("GPU", 0))
        self._task, self._group = ray.remote(_made), ray.remote(_made_together)
        self._running: dict[Any, Node] = {}

    def start(self, node: Node, again: bool, limits: Limits, alone: bool = False) -> None:  # noqa: ARG002 (`cpus` says)
        gpus, several = node.gpus_of(self._gpus), node.processes > 1
        options = {
            "num_cpus": 0 if several else node.cpus,  # of several processes each asks for its own
            "num_gpus": 0 if several else gpus,
            "max_retries": RETRIES,
            "name": node.name,
            "runtime_env": {"env_vars": _environment(self.root, node)},
        }
        given = (str(self.root), node, again, limits, os.getcwd())
        if several:
            reference = self._group.options(**options).remote(*given, gpus)
        else:
            reference = self._task.options(**options).remote(*given)
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
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, int(node.cpus / node.processes)))
    return {
        "FARM_HOME": str(root.parent),
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": search_path(),
        "HF_HUB_OFFLINE": "0",
        **settings(),
    }


def _made_together(root: str, node: Node, again: bool, limits: Limits, folder: str, gpus: float) -> Outcome:
    """One stage in several processes of the cluster that train together, with so many GPUs between them."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    if node.pays and limits.taking_turns:
        return Outcome(node.key, "it asks while it learns, and limits hold in one process: train it in one")
    place = Path(root).parent / "ray"
    said = place / f"{node.key}.json"
    each = {"CPU": max(node.cpus / node.processes, 0.01), **({"GPU": gpus / node.processes} if gpus else {})}
    trainer = TorchTrainer(
        _take_part,
        train_loop_config={"given": (root, node, again, limits, folder), "outcome": str(said)},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo", timeout_s=WAIT),
        scaling_config=ScalingConfig(num_workers=node.processes, use_gpu=gpus > 0, resources_per_worker=each),
        run_config=RunConfig(
            name=node.key, storage_path=str(place), failure_config=FailureConfig(max_failures=RETRIES)
        ),
    )
    trainer.fit()
    outcome = Outcome(**json.loads(said.read_text()))
    said.unlink()
    return outcome


def _take_part(given: dict[str, Any]) -> None:
    """What each of them does; the first leaves the outcome in a file, since the folder is shared."""
    from farm.base import progress
    from farm.hardware import processes
    from farm.scheduling.in_step import made_in_step

    root, node, again, limits, folder = given["given"]
    _settle(root, folder)
    with progress.quiet():
        outcome = made_in_step(Path(root), node, again, limits)
    if processes.is_first():
        Path(given["outcome"]).write_text(json.dumps(asdict(outcome)))


def _made(root: str, node: Node, again: bool, limits: Limits, folder: str) -> Outcome:
    """One stage, in a process of the cluster."""
    from farm.base import progress
    from farm.scheduling.perform import perform

    _settle(root, folder)
    with progress.quiet():
        return perform(Path(root), node, again, limits)


def _settle(root: str, folder: str) -> None:
    """Make a process of the cluster like the one that sent the stage."""
    import platform

    os.chdir(folder)  # paths in the YAML are relative to where the run was started
    os.environ.setdefault("FARM_STORE", str(Path(root).parent / f"store-{platform.node()}.sqlite"))
