"""How much there is to do, in texts: what a stage, and a method that can say it beforehand, tell the forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Texts:
    """How many texts, a prompt with its response each, a model goes through."""

    trained: float = 0.0
    read: float = 0.0
    """scored without a gradient"""
    written: float = 0.0
    """responses sampled"""


@runtime_checkable
class SaysItsWork(Protocol):
    """A method that knows from its settings how many texts it goes through."""

    def work(self, prompts: int, pairs: int) -> Texts | None:
        """With so many prompts and so many annotated pairs (0 where it needs none); None where that is not known."""
        ...
