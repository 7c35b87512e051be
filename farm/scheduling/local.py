"""Stages in processes of this machine, so many at a time, each with its share of the cores and one of the GPUs.

A worker that is killed (by the system, when memory runs out) costs its stage one more attempt in a new worker. When
this process goes, however it goes, its workers go too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from farm.asking.limits import Limits
from farm.scheduling.environment import search_path
from farm.scheduling.graph import Node
from farm.scheduling.perform import Outcome

ATTEMPTS = 2
"""at a stage whose worker dies"""


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    link: Connection
    node: Node | None = None
    again: bool = False
    limits: Limits = field(default_factory=Limits)
    attempt: int = 0


class Local:
    """The engine of ``--engine local``.

    Args:
        root: the artifact folder.
        workers: processes, and so stages, at a time.
        threads: of each process; its share of the cores if None and OMP_NUM_THREADS is not set.
    """

    def __init__(self, root: Path, workers: int, threads: int | None = None) -> None:
        self.root, self.slots = root, workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        said = os.environ.get("OMP_NUM_THREADS")
        self.threads = str(threads or said or max(1, cores // workers))
        self.gpus = _gpus()
        self._workers: list[_Worker] = []

    def start(self, node: Node, again: bool, limits: Limits) -> None:
        self._give(self._idle(), node, again, limits, attempt=1)

    def finished(self) -> list[Outcome]:
        while True:
            busy = {worker.link: worker for worker in self._workers if worker.node is not None}
            outcomes = []
            for link in wait(list(busy)):
                worker = busy[link]  # type: ignore[index]
                outcome = self._received(worker)
                if outcome is not None:
                    outcomes.append(outcome)
            if outcomes:
                return outcomes

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
            worker.link.close()
        self._workers = []

    def _received(self, worker: _Worker) -> Outcome | None:
        """What a worker says; None where its stage is tried once more."""
        node, again, limits, attempt = worker.node, worker.again, worker.limits, worker.attempt
        assert node is not None
        try:
            outcome: Outcome = worker.link.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.link.close()
            status = worker.process.wait()
            if attempt < ATTEMPTS:
                self._give(self._begin(worker.number), node, again, limits, attempt + 1)
                return None
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            memory = "; was there enough memory?" if status == -signal.SIGKILL else ""
            return Outcome(node.key, f"its process {how}, {ATTEMPTS} times{memory}")
        worker.node = None
        return outcome

    def _idle(self) -> _Worker:
        for worker in self._workers:
            if worker.node is None:
                return worker
        taken = {worker.number for worker in self._workers}
        return self._begin(min(set(range(self.slots)) - taken))

    def _give(self, worker: _Worker, node: Node, again: bool, limits: Limits, attempt: int) -> None:
        worker.node, worker.again, worker.limits, worker.attempt = node, again, limits, attempt
        with contextlib.suppress(OSError):  # it is dead already, which is found out when it is listened to
            worker.link.send((self.root, node, again, limits))

    def _begin(self, number: int) -> _Worker:
        ours, theirs = Pipe()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": self.threads,
            "PYTHONPATH": search_path(),
        }
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[number % len(self.gpus)]
        # -P: without it Python would look for modules in the current folder first, and run a numpy.py there.
        command = [sys.executable, "-P", "-m", "farm.scheduling.worker", str(theirs.fileno()), str(os.getpid())]
        process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
        theirs.close()
        worker = _Worker(number, process, ours)
        self._workers.append(worker)
        return worker


def _gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [d for d in visible.split(",") if d]
    cards = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(cards.iterdir())))] if cards.is_dir() else []
