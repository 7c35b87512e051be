"""Folders of files under a content address: checkpoints and tables of the stages of an experiment.

A stage's folder appears whole or not at all, and is done only while it is what was written
(:mod:`farm.storage.sealed`): a run that was killed finds only finished stages, and a damaged one is made again. While
a stage is made, one process holds its lock; another that wants the same stage waits and finds it done. Beside its
place lies ``<stage>.partial``, which outlives a kill: it holds the checkpoints of a method and the progress of the
stage. How long each stage took is kept in ``timings.jsonl``, from which later runs are estimated.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.storage import sealed
from farm.storage.code_digest import code_digest, with_code
from farm.storage.store import address

__all__ = ["Artifacts", "Made", "Place", "Work", "alone", "code_digest", "with_code"]

TIMINGS = "timings.jsonl"
PAID = "paid.json"
"""in a partial folder: what an unfinished stage has paid"""


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Only one process at a time is inside; the lock is the system's, so it goes with the process that held it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Made:
    """A finished stage."""

    name: str
    folder: Path
    key: str
    seconds: float
    """wall time when it was made, not when it was found"""
    found: bool
    """it had been made before"""


@dataclass(frozen=True)
class Place:
    """Where a stage is made."""

    folder: Path
    """empty at first; what is in it when the stage is done is the stage"""
    checkpoints: Path
    """outlives a kill; removed when the stage is done"""
    progress: Path
    """a file for the progress of the stage, as JSON"""


Work = Callable[[Place], "dict[str, Any] | None"]
"""Makes a stage in a place; what it returns is noted with the stage"""


class Artifacts:
    """The artifact folders below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def key(self, name: str, description: dict[str, Any]) -> str:
        """The content address of a stage: its name, all that determines it, and the code that makes it."""
        return address(name, code_digest("farm"), with_code(description)).hex()

    def folder(self, name: str, key: str) -> Path:
        """Where a stage is when it is done. The name is there for people; the key decides."""
        return self.root / f"{name.replace(' ', '-').replace('/', '-')}-{key[:16]}"

    def done(self, name: str, key: str) -> bool:
        """Whether a stage is there as it was made; its files are read, each once in a process. Damage is reported."""
        return sealed.whole(self.folder(name, key))

    def there(self, name: str, key: str) -> bool:
        """The same by the sizes of its files alone, at once."""
        return sealed.flaw(self.folder(name, key), contents=False) is None

    def find(self, name: str, key: str, found: bool = True) -> Made:
        """A finished stage. Raises FileNotFoundError where it is not done."""
        folder = self.folder(name, key)
        note = folder / "stage.json"
        seconds = float(json.loads(note.read_text())["seconds"])
        with contextlib.suppress(OSError):  # the last use, for `farm clean`
            os.utime(note)
        return Made(name, folder, key, seconds, found)

    def paid(self, name: str, key: str) -> float:
        """US dollars that a stage, finished or not, has paid for answers; 0 where nothing is noted."""
        for note in (self.folder(name, key) / "stage.json", self.partial(name, key) / PAID):
            with contextlib.suppress(OSError, ValueError):
                return float(json.loads(note.read_text()).get("paid", 0.0))
        return 0.0

    def partial(self, name: str, key: str) -> Path:
        """The folder beside a stage that is being made."""
        folder = self.folder(name, key)
        return folder.with_name(folder.name + ".partial")

    def make(
        self,
        name: str,
        key: str,
        make: Work,
        facts: dict[str, Any] | None = None,
        again: bool = False,
    ) -> Made:
        """The stage, made by ``make`` unless it is there.

        Args:
            name: for people; part of the folder's name.
            key: the content address.
            facts: what to note of it beside its name, key and seconds, and what ``make`` returns.
            again: make it even if it is there, and put the new one in its place.
        """
        if not again and self.done(name, key):
            return self.find(name, key)
        with self._locked(name, key) as partial:
            if not again and self.done(name, key):  # by the process that held the lock
                return self.find(name, key)
            self._make(name, key, partial, make, facts or {})
        return self.find(name, key, found=False)

    def _make(self, name: str, key: str, partial: Path, make: Work, facts: dict[str, Any]) -> None:
        with sealed.written(self.folder(name, key), again=True) as new:
            checkpoints = partial / "checkpoints"
            checkpoints.mkdir(exist_ok=True)
            started = time.monotonic()
            returned = make(Place(new, checkpoints, partial / "progress.json"))
            noted = {"name": name, "key": key, "seconds": time.monotonic() - started, **facts, **(returned or {})}
            (new / "stage.json").write_text(json.dumps(noted, indent=1, default=str))
        self._note({k: v for k, v in noted.items() if k != "description"})

    @contextlib.contextmanager
    def _locked(self, name: str, key: str) -> Iterator[Path]:
        """Hold the stage's partial folder; the lock is the system's, so it goes with the process that held it."""
        partial = self.partial(name, key)
        while True:
            partial.mkdir(parents=True, exist_ok=True)
            try:
                lock = (partial / "lock").open("a")
            except FileNotFoundError:  # another process has just removed the folder
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _same_file(lock.fileno(), partial / "lock"):
                break
            lock.close()
        done = False
        try:
            yield partial
            done = True
        finally:
            # Kept after a failure where it holds a checkpoint, which the next attempt goes on from, or was paid for.
            if done or not (any((partial / "checkpoints").glob("*")) or (partial / PAID).exists()):
                shutil.rmtree(partial, ignore_errors=True)
            lock.close()

    def _note(self, facts: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), (self.root / TIMINGS).open("a") as lines:
            lines.write(json.dumps(facts, default=str) + "\n")

    def timings(self) -> list[dict[str, Any]]:
        """What is known of every stage that was ever made here: name, seconds, and the facts noted with it."""
        found = []
        with contextlib.suppress(OSError):
            for line in (self.root / TIMINGS).read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # two machines may have written at once
                    if isinstance(facts := json.loads(line), dict) and isinstance(facts.get("seconds"), (int, float)):
                        found.append(facts)
        return found


def _same_file(opened: int, path: Path) -> bool:
    """Whether an open file is still the one at the path: it may have been removed while this process waited."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(opened)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
