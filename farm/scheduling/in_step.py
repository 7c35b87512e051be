"""Several processes that train together (torchrun, accelerate launch): every process goes through the stages in step.

The first makes all stages and writes all files. The others take part in the stages that train, discard their results,
and wait while the other stages are made, so that no judge is asked twice. After each stage the first process sends its
outcome to the others; which stages were done beforehand is agreed on at the start.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from farm.asking.limits import Limits
from farm.base import progress
from farm.base.errors import OptionError, UserError
from farm.base.launched import follows, several
from farm.scheduling.graph import Graph, Node
from farm.scheduling.perform import Outcome, perform
from farm.scheduling.scheduler import Done, schedule
from farm.storage import sealed
from farm.storage.artifacts import Artifacts, Place

_TRAINS = b"trains"
PATIENCE = 600.0
"""seconds for the others to come to the end of a stage in which this process met a defect"""


def agreed(graph: Graph, artifacts: Artifacts, force: Sequence[str] = ()) -> Done:
    """Which stages are done: by the artifacts; for several processes by what the first one found at the start."""
    if not several():
        return artifacts
    if force:
        raise OptionError("`force` works with one process; make the stages again without torchrun or accelerate launch")
    from farm.hardware import processes

    processes.start()
    found = [key for key, node in graph.items() if artifacts.done(node.name, node.key)] if not follows() else []
    return _Agreed(frozenset(json.loads(processes.from_first(json.dumps(found).encode()))))


class _Agreed:
    def __init__(self, keys: frozenset[str]) -> None:
        self._keys = keys

    def done(self, name: str, key: str) -> bool:  # noqa: ARG002 (the key is enough)
        return key in self._keys


class InStep:
    """The engine of every process; stages are made one after another."""

    slots = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self._outcomes: list[Outcome] = []

    def start(self, node: Node, again: bool, limits: Limits, alone: bool = False) -> None:  # noqa: ARG002 (it always is)
        self._outcomes.append(made_in_step(self.root, node, again, limits))

    def finished(self) -> list[Outcome]:
        out, self._outcomes = self._outcomes, []
        return out

    def close(self) -> None:
        """Nothing is under way."""


def made_in_step(root: Path, node: Node, again: bool, limits: Limits) -> Outcome:
    """One stage, made by this process and those that train with it; every one of them must ask."""
    from farm.hardware import processes

    sent: dict[str, Any] = {}
    defect: str | None = None
    if not follows():
        outcome = perform(root, node, again, limits) if not node.trains else _led(root, node, again, limits)
        sent, defect = asdict(outcome), outcome.error if outcome.trace else None
    elif node.trains and processes.from_first(b"") == _TRAINS:
        defect = _take_part(root, node)
    with _giving_up(defect):
        return Outcome(**json.loads(processes.from_first(json.dumps(sent).encode())))


def _led(root: Path, node: Node, again: bool, limits: Limits) -> Outcome:
    """A stage that trains, made by the first process. It tells the others when the training begins: the stage may be
    found made, by another run meanwhile, and then none of them may begin, for nobody would train with it."""
    from farm.hardware import processes

    told: list[bytes] = []

    def tell(message: bytes) -> None:
        told.append(processes.from_first(message))

    def work(place: Place) -> dict[str, Any] | None:
        tell(_TRAINS)
        return node.work(place)

    outcome = perform(root, replace(node, work=work), again, limits)
    if not told:
        tell(b"")
    return outcome


@contextmanager
def _giving_up(defect: str | None) -> Iterator[None]:
    """After a defect, end this process unless the others come here soon: where they met none, they wait for it in the
    middle of the stage. Alarms are met by all, and the first one reports them."""
    if defect is None:
        yield
        return

    def give_up() -> None:
        print(f"farm: {defect}; the other processes do not end the stage, so this one ends", file=sys.stderr)
        os._exit(1)

    timer = threading.Timer(PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _take_part(root: Path, node: Node) -> str | None:
    """Make the stage and discard it. A user's mistake is raised in every process, and the first one reports it; a
    defect may be this one's alone, and is returned."""
    artifacts = Artifacts(root)
    with sealed.unfinished(Path(tempfile.gettempdir()) / "follower") as folder:
        (folder / "stage").mkdir()
        checkpoints = artifacts.partial(node.name, node.key) / "checkpoints"
        try:
            with node.where():
                node.work(Place(folder / "stage", checkpoints, folder / "progress.json"))
        except (UserError, MemoryError):
            return None
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def follow(graph: Graph, artifacts: Artifacts, force: Sequence[str] = ()) -> NoReturn:
    """Go through the stages with the first process, silently, and end."""
    with progress.quiet():
        schedule(graph, agreed(graph, artifacts, force), InStep(artifacts.root))
    raise SystemExit(0)
