"""What every training needs and none is about: the optimizer and its schedule, micro-batches, the processes that train
together, checkpoints, the log, early alarms. A method's ``train`` is a loop over a :class:`Trainer` and holds the rest.

A *step* is one line of the log and one place to go on from. It is a batch of rollouts with a few updates, or one
minibatch of rows that do not change; every draw is keyed by its number, so where a training stopped is a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from farm.errors import UserError
from farm.protocols import Learning, Samples
from reference_methods.parts.batches import Batch, Rows, Work, in_parts, minibatches, prompt_stream
from reference_methods.parts.checkpoints import Checkpoints, Together
from reference_methods.parts.optimization import Metrics, Optimizer, accumulate
from reference_methods.parts.training import Descent, OwnSamples, Training

Loss = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]
"""Given a part of a minibatch: its share of the loss and of each metric; shares add up (:meth:`Batch.mean`)."""

SAME = 1e-3
"""how far a metric may be from what it must be before the first update"""


class Trainer:
    """One training of some networks.

    Args:
        settings: what trains and how it is stepped.
        purpose: names the training in messages and checkpoints, and keys its draws.
        networks: all that trains, each with its peak learning rate, the policy first.
        at_start: what metrics must be before the first update; anything else stops the training.
        kept: what the method remembers from step to step besides the networks, by name.
    """

    def __init__(
        self,
        settings: Training,
        learning: Learning,
        purpose: str,
        networks: Sequence[tuple[Any, float]],
        at_start: Mapping[str, float] | None = None,
        kept: Mapping[str, object] | None = None,
    ) -> None:
        self.settings, self.learning, self.purpose = settings, learning, purpose
        self._networks, self._at_start, self._kept = networks, at_start or {}, Together(**(kept or {}))
        self.same, self.step, self.number = SAME, 0, 0
        self._updates, self._logged = list[Metrics](), Metrics()
        self._started, self._tokens = 0.0, 0

    # --- steps --------------------------------------------------------------------------------------------------------

    def steps(self, number: int, updates: int, of: object = None) -> Iterator[int]:
        """The numbers of the steps that are still to do, with ``updates`` in all. What was logged in a step is written
        when the next is asked for, and then a checkpoint if it is time; ``of`` is what a checkpoint must be of."""
        self.number = number
        self.learning.steps(number)
        settings = self.settings
        with settings.spread(network for network, _ in self._networks):
            self._optimizer = Optimizer(
                [(network.parameters(), peak) for network, peak in self._networks],
                steps=updates,
                schedule=settings.schedule,
                warm_up=settings.warm_up,
                max_gradient_norm=settings.max_gradient_norm,
                epsilon=settings.adam_epsilon,
                purpose=self.purpose,
            )
            facts, minutes = (settings.facts(), number, of), settings.checkpoint_minutes
            checkpoints = Checkpoints(self.learning, self.purpose, self._optimizer, minutes, facts, self._kept)
            for self.step in range(checkpoints.restore(), number):
                self._updates, self._logged = [], {}
                self._started, self._tokens = time.perf_counter(), 0
                yield self.step
                checkpoints.log({"step": self.step, **self.line()})
                checkpoints.after(self.step)

    def batches(self, work: Work) -> Iterator[Batch]:
        """A step for each minibatch of rows that do not change, in ``epochs`` keyed orders."""
        given = self.settings
        assert isinstance(given, Descent)
        rows = minibatches(work.ids, work.lengths, given.batch_size, given.epochs, self.learning.seed, self.purpose)
        for step in self.steps(len(rows), len(rows), of=work.ids.tobytes()):
            yield work.batch(rows[step])

    def prompts(self, each: int) -> Iterator[list[str]]:
        """A step for each ``each`` prompts, in a keyed order; all come before any comes again."""
        given, prompts = self.settings, self.learning.prompts["instruction"].tolist()
        assert isinstance(given, OwnSamples)
        if not prompts:
            raise UserError(f"{self.purpose}: there are no prompts to sample for")
        asked = list(prompt_stream(prompts, each, given.steps, self.learning.seed, self.purpose))
        for step in self.steps(given.steps, given.steps * given.epochs * given.minibatches, of=prompts):
            yield asked[step]

    # --- in a step ----------------------------------------------------------------------------------------------------

    def minibatches(self, data: Samples | Work) -> Iterator[Batch]:
        """``minibatches`` of this step's rows, ``epochs`` times; none of no rows."""
        work, given = Work.of(data, by_prompt=True) if isinstance(data, Samples) else data, self.settings
        assert isinstance(given, OwnSamples)
        size = -(-len(work.ids) // given.minibatches)
        if size:
            for rows in minibatches(
                work.ids, work.lengths, size, given.epochs, self.learning.seed, self.key(), bucket=1
            ):
                yield work.batch(rows)

    def update(self, batch: Batch, loss: Loss) -> Metrics:
        """One optimizer step on a minibatch, in micro-batches, of which each process takes a share."""
        work, tokens = batch.work, self.settings.micro_batch_tokens

        def of(rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
            return loss(replace(batch, rows=rows))

        metrics = accumulate(of, batch.rows, work.lengths, tokens, self._optimizer.in_step, work.prompts)
        for name, expected in self._at_start.items() if self._optimizer.steps_taken == 0 else ():
            if abs(metrics[name] - expected) > self.same:
                raise RuntimeError(
                    f"{self.purpose}: before the first update {name} must be {expected:.4g} and is {metrics[name]:.4f}:"
                    " what sampled, or the reference, and what trains give different log-probabilities"
                )
        metrics |= self._optimizer.step(metrics["loss"])
        self._updates.append(metrics)
        self._tokens += int(work.lengths[batch.rows].sum())
        return metrics

    def compute(self, what: Callable[[Samples], Tensor], samples: Samples) -> Tensor:
        """``what`` of all samples, without gradient, in parts that fit into memory; each process computes a share."""
        return in_parts(what, samples, self.settings.micro_batch_tokens, together=True)

    def log(self, **metrics: float) -> None:
        """Add to the line of this step."""
        self._logged |= metrics

    def snapshot(self) -> Any:
        """Where the networks, the optimizer and the line of this step are, for :meth:`back_to`."""
        return self._optimizer.snapshot(), len(self._updates), self._tokens

    def back_to(self, snapshot: Any) -> None:
        """As if there had been no update since."""
        self._optimizer.back_to(snapshot[0])
        self._updates, self._tokens = self._updates[: snapshot[1]], snapshot[2]

    @property
    def in_step(self) -> bool:
        """Whether networks are spread over processes: then a loss is also called for nothing, on others' rows."""
        return self._optimizer.in_step

    def key(self, purpose: str = "") -> str:
        """What this step's draws are keyed by."""
        return f"{self.purpose}{purpose and '/'}{purpose}/step {self.step}"

    def line(self) -> Metrics:
        """What is logged of this step."""
        names = self._updates[0] if self._updates else ()
        means = {name: float(np.mean([metrics[name] for metrics in self._updates])) for name in names}
        speed = self._tokens / (time.perf_counter() - self._started)
        return {**means, "tokens_per_second": speed, **self._logged}


def part_of(learning: Learning, first_step: int) -> Learning:
    """The same for a training that is a part of another: its step 0 is logged as ``first_step``."""

    def log(metrics: dict[str, float]) -> None:
        learning.log({**metrics, "step": metrics["step"] + first_step})

    return replace(learning, log=log, steps=lambda total: None)
