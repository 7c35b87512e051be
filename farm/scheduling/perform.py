"""One stage, made or found, in whichever process this is: what went wrong becomes a sentence, never a crash."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from farm.asking.limits import Limits, OverBudget
from farm.base.errors import UserError
from farm.scheduling.account import Paying
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
    paid: float = 0.0
    """US dollars for answers"""
    lacks: float | None = None
    """US dollars that the budget lacks for it, about; None where that is not what stopped it"""


def perform(root: Path, node: Node, again: bool, limits: Limits) -> Outcome:
    """Make a stage below the artifact folder ``root``, within limits; ``again`` even if it is done."""
    artifacts = Artifacts(root)
    work = Paying(node.work, limits) if node.pays else node.work
    try:
        with node.where():
            stage = artifacts.make(node.name, node.key, work, dict(node.facts), again)
    except OverBudget as error:
        return Outcome(node.key, str(error), paid=artifacts.paid(node.name, node.key), lacks=error.lacks)
    except UserError as error:
        return Outcome(node.key, str(error))
    except MemoryError:
        return Outcome(node.key, "out of memory")
    except Exception as error:
        return Outcome(node.key, f"{type(error).__name__}: {error}", traceback.format_exc())
    return Outcome(node.key, found=stage.found, paid=artifacts.paid(node.name, node.key) if node.pays else 0.0)
