"""A question to a model, its content address, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotators.llm.backends import where
from annotators.llm.completion import Completion, Request
from farm.store import address

KIND = "llm answer"


@dataclass(frozen=True)
class Question:
    """A request and where it goes."""

    provider: str
    base_url: str | None
    request: Request
    rows: int = 1
    """how many rows the answer serves"""

    def key(self) -> bytes:
        """The content address of the answer."""
        return address(KIND, self.provider, where(self.provider, self.base_url), self.request.plain())


@dataclass(frozen=True)
class Answer:
    """What became of a question."""

    completion: Completion | None = None
    failure: str = ""
    """why there is no completion"""
    asked: bool = True
    """False: not asked, because the budget is spent or the run is dry"""
    cached: bool = False
    price: float = 0.0
    seconds: float = 0.0


def expected_tokens(request: Request) -> int:
    """Expected input tokens: about four bytes of English a token."""
    return (len(request.system) + len(request.user)) // 4 + 16


def stored(value: dict[str, Any]) -> Answer:
    """The answer that a row of the store holds."""
    known = dict(value)
    cost, seconds = float(known.pop("price", 0.0)), float(known.pop("seconds", 0.0))
    return Answer(Completion(**known), cached=True, price=cost, seconds=seconds)
