"""One stage, made or found, in whichever process this is: what went wrong becomes a sentence, never a crash."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from farm.base.errors import UserError
from farm.scheduling.graph import Node
from farm.storage.artifacts import Artifacts


@dataclass(frozen=True)
class Outcome:
    """What came of a stage."""

    key: str
    error: str | None = None
    """a sentence; None where the stage is done"""
    trace: str = ""
    """where it happened, for a mistake that is not the user's"""
    found: bool = False
    """it had been made before, perhaps by another process meanwhile"""


def perform(root: Path, node: Node, again: bool) -> Outcome:
    """Make a stage below the artifact folder ``root``; ``again`` even if it is done."""
    try:
        stage = Artifacts(root).make(node.name, node.key, node.work, dict(node.facts), again)
    except UserError as error:
        return Outcome(node.key, str(error))
    except MemoryError:
        return Outcome(node.key, "out of memory")
    except Exception as error:
        return Outcome(node.key, f"{type(error).__name__}: {error}", traceback.format_exc())
    return Outcome(node.key, found=stage.found)
