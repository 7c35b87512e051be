"""Time of stages without a recorded duration, estimated from the tokens that this machine processes in a second.

A world may give an untrained policy of the size of its base policy (:class:`Benchmarkable`). On that, a few steps of
each kind are timed: training, reading (log-probabilities without a gradient) and sampling; a stage takes as long as its
tokens do. Annotators that are programs are timed on a few pairs. Nothing is kept, and no model or person is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pandas as pd

from farm.base import progress
from farm.base.errors import UserError
from farm.experiments.setting import Setting
from farm.experiments.stages.stage import Asks
from farm.forecasts import arithmetic
from farm.roles.protocols import Policy
from farm.roles.work import Texts
from farm.storage.store import address

TRAINED, READ, WRITTEN, NEW_TOKENS, JUDGED = 32, 256, 192, 16, 64
"""rows of one step of each kind, tokens of a row that is written, pairs that are judged; as in experiments"""
ENOUGH = 0.25
"""seconds that each kind is timed, at least"""


@runtime_checkable
class Benchmarkable(Protocol):
    """A world that gives an untrained policy to be timed."""

    def untrained_policy(self) -> tuple[Policy, int]:
        """A policy as large as the base policy, and how many texts are yet to be trained on before that is there."""
        ...


@dataclass(frozen=True)
class _Speed:
    trained: float
    """seconds a token"""
    read: float
    written: float
    prompt: float
    """tokens"""
    response: float
    documents: int


class MeasuredSpeed:
    """Seconds of stages; each world is measured once, and each annotator."""

    def __init__(self) -> None:
        self._speeds: dict[bytes, _Speed | None] = {}
        self._verdicts: dict[bytes, float] = {}

    def seconds(self, setting: Setting, texts: Texts | None) -> float | None:
        """Of a stage that samples or trains; None where the world gives no policy to time, or the work is unknown."""
        if texts is None or (speed := self._of(setting)) is None:
            return None
        counted = arithmetic.tokens(texts, speed.response, speed.prompt)
        return counted[0] * speed.trained + counted[1] * speed.read + counted[2] * speed.written

    def base_model(self, setting: Setting) -> float:
        """Seconds until the world's own base policy is there."""
        speed = self._of(setting)
        return 0.0 if speed is None else speed.documents * (speed.prompt + speed.response) * speed.trained

    def verdicts(self, setting: Setting, asks: Asks) -> float | None:
        """Of verdicts that programs alone give."""
        if self._of(setting) is None:
            return None
        key = address(setting.description["world"], setting.annotator_description(asks.role))
        if key not in self._verdicts:
            pairs = _pairs(setting)
            annotator = setting.annotator(asks.role)
            with progress.quiet():
                self._verdicts[key] = _timed(lambda: annotator.annotate(pairs, seed=0)) / len(pairs)
        return asks.rows * self._verdicts[key]

    def _of(self, setting: Setting) -> _Speed | None:
        key = address(setting.description["world"])
        if key not in self._speeds:
            self._speeds[key] = _measured(setting)
        return self._speeds[key]


def _pairs(setting: Setting) -> pd.DataFrame:
    table = setting.world.demonstrations(JUDGED)
    assert table is not None  # the world has been measured on them
    return pd.DataFrame(
        {
            "instruction": table["instruction"],
            "output_1": table["output"],
            "output_2": table["output"].to_numpy()[::-1],
            "generator_1": "one",
            "generator_2": "two",
        }
    )


def _measured(setting: Setting) -> _Speed | None:
    world = setting.world
    try:
        if not isinstance(world, Benchmarkable) or (texts := world.demonstrations(READ)) is None:
            return None
        policy, documents = world.untrained_policy()
    except UserError:  # the model's libraries are not installed; the run itself will say so
        return None
    import torch

    samples = policy.encode(texts["instruction"].tolist(), texts["output"].tolist())
    prompt = sum(map(len, samples.prompt_tokens)) / len(samples)
    response = float(samples.lengths().mean())
    few = samples.select(range(min(TRAINED, len(samples))))
    parameters = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0)

    def train() -> None:
        log_probabilities, mask = policy.log_probabilities(few)
        optimizer.zero_grad(set_to_none=True)
        (-(log_probabilities * mask).sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def read() -> None:
        with torch.no_grad():
            policy.log_probabilities(samples)

    asked = (texts["instruction"].tolist() * WRITTEN)[:WRITTEN]
    written: list[int] = []

    def write() -> None:
        samples_written = policy.sample(asked, seed=0, purpose="rehearsal", max_new_tokens=NEW_TOKENS)
        written.append(int(samples_written.lengths().sum()))

    read_tokens = len(samples) * (prompt + response)
    return _Speed(
        trained=_timed(train) / (len(few) * (prompt + response)),
        read=_timed(read) / read_tokens,
        written=_timed(write) / max(written),
        prompt=prompt,
        response=response,
        documents=documents,
    )


def _timed(step: Callable[[], object]) -> float:
    """Seconds of one step, the quickest of some: the first ones load code, and others may use the machine."""
    best, spent = float("inf"), 0.0
    while spent < ENOUGH:
        started = time.monotonic()
        step()
        took = time.monotonic() - started
        best, spent = min(best, took), spent + max(took, 1e-3)
    return best
