"""One question to a language model and its answer: what every backend takes and gives.

A backend raises one of the failures below, or :class:`farm.errors.UserError` when no further question can succeed (a
wrong key, an unknown model); everything else that goes wrong inside it is a defect. None of them ever carries a key.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Finish = Literal["stop", "length", "refusal"]


@dataclass(frozen=True)
class Request:
    """Everything that determines an answer, apart from the server it is sent to."""

    model: str
    """the name the server knows it by, without the provider"""
    system: str
    user: str
    max_tokens: int
    temperature: float | None = None
    """None leaves it to the server: some models accept no temperature"""
    labels: tuple[str, ...] = ()
    """ask for the log-probabilities of these as the first token of the answer"""
    schema: dict[str, Any] | None = None
    """ask for JSON of this schema"""
    effort: str | None = None
    """reasoning effort, for models that reason"""
    seed: int = 0
    replicate: int = 0

    def plain(self) -> dict[str, Any]:
        """As plain data, for a content address."""
        return vars(self)


@dataclass(frozen=True)
class Completion:
    """What the model said."""

    text: str
    labels: dict[str, float] | None = None
    """log-probability of each label as the first token, an upper bound where the server did not list it
    (annotators/llm/labels.py). None: the server gives none"""
    mass: float | None = None
    """probability that the first token was one of the labels"""
    input_tokens: int = 0
    output_tokens: int = 0
    finish: Finish = "stop"
    model: str = ""
    """the model and version that answered, as the server says"""


class Backend(Protocol):
    """Somewhere a model can be asked."""

    @property
    def concurrency(self) -> int:
        """How many questions it can take at once with profit."""

    async def complete(self, request: Request) -> Completion: ...

    async def close(self) -> None: ...


class Failure(Exception):
    """This question failed."""


class Failed(Failure):
    """For good: the same question would fail again."""


class TryAgain(Failure):
    """For now. ``after`` is the wait in seconds that the server asks for."""

    def __init__(self, reason: str, after: float | None = None, charged: bool = False, connected: bool = True) -> None:
        super().__init__(reason)
        self.after = after
        self.charged = charged
        """the model may have worked, and the provider charged for it"""
        self.connected = connected


class QuotaSpent(Failure):
    """The account has no credit or quota left: nothing is wrong with the question."""


_SECRET = re.compile(r"\b(sk|pk|key|Bearer|Basic|xai|gsk|hf)[-_ ][A-Za-z0-9_\-*.=+/]{6,}", re.IGNORECASE)


def redacted(text: str, limit: int = 300) -> str:
    """A server's message without anything that is, or looks like, a key; one line of at most ``limit`` characters."""
    for name, value in os.environ.items():
        if len(value) >= 6 and any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD")):
            text = text.replace(value, "[key]")
    text = _SECRET.sub("[key]", " ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"
