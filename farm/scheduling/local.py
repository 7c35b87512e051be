"""Stages in processes of this machine, so many at a time, each with its share of the cores and one of the GPUs.

A stage beside which no other can be made has all cores.

A stage that asks for several GPUs or processes waits until as many places are free, and has them all. A worker that is
killed (by the system, when memory runs out) costs its stage one more attempt in a new worker. When this process goes,
however it goes, its workers go too.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from farm.asking.limits import Limits
from farm.base import platforms
from farm.scheduling.environment import gpus, search_path
from farm.scheduling.graph import Node
from farm.scheduling.perform import Outcome

ATTEMPTS = 2
"""at a stage whose worker dies"""


@dataclass(frozen=True)
class _Task:
    node: Node
    again: bool
    limits: Limits
    alone: bool


@dataclass
class _Worker:
    places: tuple[int, ...]
    """of those that there are; a GPU belongs to each"""
    process: subprocess.Popen[bytes]
    link: Connection
    task: _Task | None = None
    attempt: int = 0


class Local:
    """The engine of ``--engine local``.

    Args:
        root: the artifact folder.
        workers: processes, and so stages, at a time.
        threads: of each stage; its share of the cores if None and OMP_NUM_THREADS is not set.
    """

    def __init__(self, root: Path, workers: int, threads: int | None = None) -> None:
        self.root, self.slots = root, workers
        said, cores = threads or os.environ.get("OMP_NUM_THREADS"), platforms.cores()
        self.threads, self.threads_alone = int(said or max(1, cores // workers)), int(said or cores)
        self.gpus = gpus()
        self.places = max(
            workers, len(self.gpus)
        )  # a stage of several GPUs has them all, however few workers there are
        self._workers: list[_Worker] = []
        self._waiting: deque[_Task] = deque()

    def start(self, node: Node, again: bool, limits: Limits, alone: bool = False) -> None:
        self._waiting.append(_Task(node, again, limits, alone))
        self._begin_what_fits()

    def _begin_what_fits(self) -> None:
        """In the order in which they came, so that a large stage is not passed over for ever."""
        while self._waiting:
            node = self._waiting[0].node
            places = self._free(min(self.places, max(node.processes, math.ceil(node.gpus or 0))))
            if places is None:
                return
            self._give(self._at(places), self._waiting.popleft(), attempt=1)

    def _free(self, count: int) -> tuple[int, ...] | None:
        """So many places without work, those of a worker that is there first; None where there are fewer."""
        taken = {place for worker in self._workers if worker.task is not None for place in worker.places}
        idle = [place for worker in self._workers if worker.task is None for place in worker.places]
        order = [*idle, *(place for place in range(self.places) if place not in idle and place not in taken)]
        return tuple(sorted(order[:count])) if len(order) >= count else None

    def finished(self) -> list[Outcome]:
        while True:
            busy = {worker.link: worker for worker in self._workers if worker.task is not None}
            outcomes = []
            for link in wait(list(busy)):
                worker = busy[link]  # type: ignore[index]
                outcome = self._received(worker)
                if outcome is not None:
                    outcomes.append(outcome)
            if outcomes:
                self._begin_what_fits()
                return outcomes

    def close(self) -> None:
        for worker in list(self._workers):
            self._end(worker)

    def _received(self, worker: _Worker) -> Outcome | None:
        """What a worker says; None where its stage is tried once more."""
        task, attempt = worker.task, worker.attempt
        assert task is not None
        try:
            outcome: Outcome = worker.link.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.link.close()
            status = worker.process.wait()
            if attempt < ATTEMPTS:
                self._give(self._begin(worker.places), task, attempt + 1)
                return None
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            memory = "; was there enough memory?" if status == -signal.SIGKILL else ""
            return Outcome(task.node.key, f"its process {how}, {ATTEMPTS} times{memory}")
        worker.task = None
        return outcome

    def _at(self, places: tuple[int, ...]) -> _Worker:
        """The worker at these places. Others that have one of them go: what they keep on its GPU is in the way."""
        for worker in [w for w in self._workers if set(w.places) & set(places) and w.places != places]:
            self._end(worker)
        return next((w for w in self._workers if w.places == places), None) or self._begin(places)

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.wait()
        worker.link.close()
        self._workers.remove(worker)

    def _give(self, worker: _Worker, task: _Task, attempt: int) -> None:
        worker.task, worker.attempt = task, attempt
        threads = self.threads_alone if task.alone else self._threads(worker.places)
        with contextlib.suppress(OSError):  # it is dead already, which is found out when it is listened to
            worker.link.send((self.root, task.node, task.again, task.limits, threads))

    def _threads(self, places: tuple[int, ...]) -> int:
        return self.threads * min(len(places), self.slots)

    def _begin(self, places: tuple[int, ...]) -> _Worker:
        ours, theirs = Pipe()
        environment = {
            # On busy cores threads that spin for one another take the time of the one they wait for.
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads(places)),
            "PYTHONPATH": search_path(),
        }
        if self.gpus:
            own = dict.fromkeys(self.gpus[place % len(self.gpus)] for place in places)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        # -P: without it Python would look for modules in the current folder first, and run a numpy.py there.
        command = [sys.executable, "-P", "-m", "farm.scheduling.worker", str(theirs.fileno()), str(os.getpid())]
        process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
        theirs.close()
        worker = _Worker(places, process, ours)
        self._workers.append(worker)
        return worker
