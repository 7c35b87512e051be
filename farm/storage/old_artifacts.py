"""Old artifacts: what there is to remove, and removing it. Nothing is removed automatically, nor any foreign folder.

That is stages, and what a kill left: of stages, of models and worlds, of processes that followed another, and of run
folders in ``runs`` here. A run folder keeps copies, so it stays whole. The store of answers stays: they may have been
paid for.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.storage import sealed

DAY = 24 * 3600.0
RUNS = Path("runs")
LEFT = "left over from an interruption"


@dataclass(frozen=True)
class Removable:
    """Something that may go."""

    path: Path
    what: str
    size: int
    """bytes"""
    days: float
    """since it was last used"""


def removable(home: Path, days: float) -> list[Removable]:
    """The stages below the program's home that were not used for so many days, and leftovers that no process holds."""
    found = []
    for place in _folders(home / "artifacts"):
        note = place / "stage.json"
        if note.is_file() and not place.name.startswith("."):
            age = (time.time() - note.stat().st_mtime) / DAY
            if age >= days:
                found.append(Removable(place, f"stage {_name(note)}", _size(place), age))
        elif (why := _leftover(place)) is not None:
            found.append(Removable(place, why, _size(place), _days(place)))
    for root in (home / "models", home / "worlds", Path(tempfile.gettempdir()), RUNS):
        left = [place for place in _folders(root) if sealed.abandoned(place)]
        found += [Removable(place, LEFT, _size(place), _days(place)) for place in left]
    return found


def remove(found: list[Removable]) -> int:
    """Remove these; returns how many bytes that frees."""
    freed = 0
    for item in found:
        # A stage without its note is no stage: removing that first, an interruption leaves nothing that looks whole.
        (item.path / "stage.json").unlink(missing_ok=True)
        shutil.rmtree(item.path, ignore_errors=True)
        freed += item.size
    return freed


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.is_symlink()) if root.is_dir() else []


def _days(place: Path) -> float:
    return (time.time() - place.stat().st_mtime) / DAY


def _leftover(place: Path) -> str | None:
    """What an interrupted stage left, unless it is being made now."""
    if place.name.endswith(".partial"):
        return None if _held(place / "lock") else "checkpoints of an unfinished stage"
    partial = place.with_name(place.name.lstrip(".").rpartition(".")[0] + ".partial")
    if place.name.startswith("."):
        return None if _held(partial / "lock") else LEFT
    return LEFT


def _held(lock: Path) -> bool:
    try:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _name(note: Path) -> str:
    try:
        return str(json.loads(note.read_text()).get("name"))
    except (OSError, ValueError, AttributeError):
        return note.parent.name


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in _files(folder))


def megabytes(size: int) -> str:
    """
    >>> megabytes(2_500_000), megabytes(3_200_000_000)
    ('2.5 MB', '3.20 GB')
    """
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
