"""Folders of files under a content address: checkpoints and tables of the stages of an experiment.

A stage's folder appears whole or not at all: it is written beside its place and renamed when complete, so a run that
was killed finds only finished stages, and two processes that make the same stage do no harm.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from farm.store import address

# What of the ground can change the result of a stage.
_GROUND = ("rng.py", "records.py", "protocols.py", "formats.py", "experiment.py", "models.py", "policies", "worlds")


@cache
def code_digest(package: str) -> str:
    """A digest of the source of a top-level package or module: a changed method is never served a stale result."""
    module = sys.modules.get(package) or importlib.import_module(package)
    file = Path(str(module.__file__))
    if package == "farm":
        roots = [file.parent / name for name in _GROUND]
    else:
        roots = [file.parent if file.name == "__init__.py" else file]
    files = sorted(f for root in roots for f in ([root] if root.is_file() else root.rglob("*.py")))
    digest = hashlib.blake2b(digest_size=8)
    for source in files:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def with_code(description: Any) -> Any:
    """A description of specs with the digest of the code behind every ``class`` in it."""
    if isinstance(description, dict):
        out = {name: with_code(value) for name, value in description.items()}
        if isinstance(description.get("class"), str):
            out["code"] = code_digest(description["class"].partition(".")[0])
        return out
    if isinstance(description, (list, tuple)):
        return [with_code(item) for item in description]
    return description


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    name: str
    folder: Path
    key: str
    seconds: float
    """wall time when it was made, not when it was found"""
    found: bool
    """it had been made before"""


class Artifacts:
    """The artifact folders below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stage(self, name: str, description: dict[str, Any], make: Callable[[Path], None]) -> Stage:
        """The folder of a stage, made by ``make(folder)`` unless it is there.

        Args:
            name: for people; part of the folder's name.
            description: plain data with all that determines the content.
        """
        key = address(name, code_digest("farm"), with_code(description)).hex()
        folder = self.root / f"{name.replace(' ', '-').replace('/', '-')}-{key[:16]}"
        note = folder / "stage.json"
        found = note.is_file()
        if not found:
            self._make(folder, name, key, description, make)
        facts = json.loads(note.read_text())
        return Stage(name, folder, key, float(facts["seconds"]), found)

    def _make(
        self, folder: Path, name: str, key: str, description: dict[str, Any], make: Callable[[Path], None]
    ) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=self.root))
        try:
            started = time.monotonic()
            make(temporary)
            facts = {"name": name, "key": key, "seconds": time.monotonic() - started, "description": description}
            (temporary / "stage.json").write_text(json.dumps(facts, indent=1, default=str))
            try:
                os.rename(temporary, folder)
            except OSError:
                if not (folder / "stage.json").is_file():  # not merely made by another process meanwhile
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
