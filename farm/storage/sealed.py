"""Folders that appear whole or not at all, and that tell when they are no longer what was written.

A folder is written beside its place under a name of ours, and renamed when its files have reached the disk: a kill or a
power cut leaves the old folder, the new one or none. ``files.json`` in it holds the size and the SHA-256 of every file.
While it is written its process holds a lock on it, which distinguishes what a kill left from what is under way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from farm.base import files, progress

NOTE = "files.json"
_UNFINISHED = re.compile(r"\..+\.farm-[a-z0-9_]{8}")
_known: dict[tuple[int, int, int, int], str] = {}
"""device, inode, time of change and size of a file -> its digest: in one process a file is read once"""


@contextlib.contextmanager
def written(folder: Path, again: bool = False) -> Iterator[Path]:
    """An empty folder to write into; when the block ends without an error it takes the place of ``folder``.

    Where another process has put a whole one there meanwhile, that one stays, unless ``again``.
    """
    with unfinished(folder) as new:
        yield new
        _seal(new)
        if not again and flaw(folder) is None:
            return
        if folder.exists():
            with unfinished(folder) as old:
                os.rename(folder, old / "old")
                os.rename(new, folder)
        else:
            os.rename(new, folder)
        files.sync(folder.parent)


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new folder beside the place of ``folder``, held while the block runs and removed after it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.farm-", dir=folder.parent))
    new.chmod(0o755)
    hold = os.open(new, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a shared folder's file system may know no locks
            fcntl.flock(hold, fcntl.LOCK_SH)
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        os.close(hold)


def abandoned(folder: Path) -> bool:
    """Whether this is the unfinished folder of a process of this user that is gone."""
    if not _UNFINISHED.fullmatch(folder.name):
        return False
    try:
        hold = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if os.fstat(hold).st_uid != os.getuid():
            return False
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or unknown
        return False
    finally:
        os.close(hold)
    return True


def flaw(folder: Path, contents: bool = True) -> str | None:
    """In what a folder differs from what was written there, as a clause; None where it does not.

    Sizes are always compared; ``contents`` says whether files are read, which takes a second or so a gigabyte.
    """
    try:
        written_down = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        noted = [(str(name), int(size), str(digest)) for name, (size, digest) in written_down.items()]
    except FileNotFoundError:
        return f"{NOTE} is missing"
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return f"{NOTE} cannot be read"
    for name, size, digest in noted:
        path = folder / name
        try:
            there = path.stat().st_size
            if there != size:
                return f"{name} has {there:,} bytes instead of {size:,}"
            if contents and _digest(path) != digest:
                return f"{name} is not what was written"
        except (OSError, ValueError):
            return f"{name} is missing or cannot be read"
    return None


def whole(folder: Path) -> bool:
    """Whether a folder is there as it was written. Where it is there but is not, that is said."""
    if not folder.is_dir():
        return False
    wrong = flaw(folder)
    if wrong is not None:
        progress.note(f"{folder}: {wrong}, so it is made again")
    return wrong is None


def _seal(folder: Path) -> None:
    """Write down all files of a folder, and see that they are on the disk."""
    paths = sorted(p for p in folder.rglob("*") if not p.is_symlink())
    sealed = {str(p.relative_to(folder)): (p.stat().st_size, _digest(p)) for p in paths if p.is_file()}
    note = folder / NOTE
    note.write_text(json.dumps(sealed, indent=0), encoding="utf-8")
    plain = stat.S_IMODE(note.stat().st_mode)  # safetensors makes files that only their owner can read
    for path in paths:
        if path.is_file():
            path.chmod(plain)
    for path in (*paths, note, folder):
        files.sync(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        known = (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if known not in _known:
            _known[known] = hashlib.file_digest(file, "sha256").hexdigest()
        return _known[known]
