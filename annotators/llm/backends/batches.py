"""What a provider that takes batches offers, and what it says of a batch that has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from annotators.llm.completion import Completion, Request


@dataclass(frozen=True)
class Lost:
    """A question of a batch that has no answer."""

    why: str
    about: str = ""
    """of a request that was refused: the codes and the message, from which a parameter may be adapted"""


@dataclass(frozen=True)
class Ended:
    """A batch that has ended."""

    said: dict[str, Completion | Lost]
    """by the id of the question"""
    why: str = "the batch ended without an answer"
    """for questions that are not in ``said``"""
    again: bool = False
    """those are to be submitted again at once"""
    free: bool = False
    """and that costs no attempt: the provider never began"""
    queue: int | None = None
    """input tokens that its queue holds, where it says so"""


@runtime_checkable
class BatchBackend(Protocol):
    """A backend whose provider takes batches."""

    def most(self, request: Request) -> int:
        """Tokens of an answer that are asked for at most."""

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the API takes it."""

    def adapt(self, said: str) -> bool:
        """Whether what a line was refused for is left out from now on."""

    async def submit(self, requests: dict[str, Request], mark: str) -> str:
        """Submit requests by id; the id of the batch."""

    async def find(self, mark: str, since: float, count: int) -> str | None:
        """The id of the batch that was submitted with this mark, ``count`` requests, not before ``since`` (seconds)."""

    async def collect(self, batch: str) -> Ended | None:
        """What became of a batch; None while it runs."""
