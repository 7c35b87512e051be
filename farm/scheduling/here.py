"""Stages one after another in this process, or in a group of processes where a stage asks for one: the default."""

from __future__ import annotations

from pathlib import Path

from farm.asking.limits import Limits
from farm.scheduling.graph import Node
from farm.scheduling.perform import Outcome
from farm.scheduling.together import made


class Here:
    """The engine that needs nothing."""

    slots = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self._outcomes: list[Outcome] = []

    def start(self, node: Node, again: bool, limits: Limits, alone: bool = False) -> None:  # noqa: ARG002 (it always is)
        self._outcomes.append(made(self.root, node, again, limits))

    def finished(self) -> list[Outcome]:
        out, self._outcomes = self._outcomes, []
        return out

    def close(self) -> None:
        """Nothing is under way."""
