"""One stage made by several processes of this machine, each on a GPU of its own: torch's elastic launcher.

    resources: {ppo: {gpus: 4}}

Each process takes a share of every minibatch, as under torchrun (:mod:`farm.hardware.processes`). One that is killed
ends the attempt of all; they are started once more, and the training goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from farm.asking.limits import Limits
from farm.base import progress
from farm.base.launched import follows
from farm.hardware.device import using
from farm.scheduling.environment import end_with, gpus
from farm.scheduling.graph import Node
from farm.scheduling.perform import Outcome, perform

ATTEMPTS = 2
"""at a stage one of whose processes dies"""


def made(root: Path, node: Node, again: bool, limits: Limits, quietly: bool = False) -> Outcome:
    """A stage below the artifact folder ``root``, in as many processes as it asks for; ``quietly`` if these shall show
    no progress."""
    if node.processes == 1:
        return perform(root, node, again, limits)
    if (refused := refusal(node, limits, len(gpus()))) is not None:
        return Outcome(node.key, refused)
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _make_room(node)
    before = signal.getsignal(signal.SIGTERM)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what went wrong is said in one sentence
    how = ""
    try:
        for attempt in range(ATTEMPTS):  # each a group of its own: one that the launcher starts again waits for ever
            with tempfile.TemporaryDirectory(prefix="farm-processes-") as logs:
                group = LaunchConfig(
                    min_nodes=1,
                    max_nodes=1,
                    nproc_per_node=node.processes,
                    logs_specs=DefaultLogsSpecs(log_dir=logs),
                    run_id=f"{node.key[:16]}-{attempt}",
                    rdzv_backend="c10d",
                    rdzv_endpoint="127.0.0.1:0",
                    local_addr="127.0.0.1",
                    max_restarts=0,
                    signals_to_handle="SIGTERM",
                )
                try:
                    found = elastic_launch(group, _member)(str(root), node, again, limits, os.getpid(), quietly)
                    return Outcome(**found[0])
                except ChildFailedError as error:
                    how = _how(error)
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: then the launcher has set no handler either
            signal.signal(signal.SIGTERM, before)
    return Outcome(node.key, f"one of its {node.processes} processes {how}, {ATTEMPTS} times")


def _make_room(node: Node) -> None:
    """Give up what this process holds of the GPUs: models for its next stages, and a vLLM that sampled for them."""
    from farm.hardware import memory

    if (release := getattr(node.work, "release", None)) is not None:
        release()
    if (vllm := sys.modules.get("farm.engines.vllm")) is not None:
        vllm.stop()
    memory.give_back()


def refusal(node: Node, limits: Limits, there: int) -> str | None:
    """Why a stage cannot be made by several processes here, where so many GPUs are; None where it can."""
    if node.pays and limits.taking_turns:
        return "it asks while it learns, and limits hold in one process: train it in one"
    wanted = int(node.gpus_of(there))
    if wanted and max(wanted, node.processes) > there:
        have = "no GPU" if not there else "one GPU" if there == 1 else f"{there} GPUs"
        return (
            f"it is to be trained on {max(wanted, node.processes)} GPUs, and this machine has {have}: change `gpus` of "
            f"its `resources`, or say {{gpus: 0, processes: {node.processes}}} to train it on the processor"
        )
    return None


def _member(root: str, node: Node, again: bool, limits: Limits, parent: int, quietly: bool) -> dict[str, Any]:
    """What each process of the group does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who started them decides
    end_with(parent)
    import torch

    from farm.hardware import processes
    from farm.scheduling.in_step import made_in_step

    torch.set_num_threads(max(1, torch.get_num_threads() // node.processes))
    with progress.quiet() if quietly or follows() else contextlib.nullcontext():
        with using(None if node.gpus_of(1) else "cpu"):
            processes.start()
        try:
            return asdict(made_in_step(Path(root), node, again, limits))
        finally:
            processes.end()


def _how(error: Any) -> str:
    """How the first process that failed ended."""
    status = error.get_first_failure()[1].exitcode
    memory = "; was there enough memory?" if status == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{memory}" if status < 0 else f"ended with status {status}"
