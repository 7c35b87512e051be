"""Training on fixed rows: the settings and the loop of every method whose data do not change while it learns.

The order of the rows is decided before the first step, so where a training stopped is a number: with
``Learning.checkpoints`` a killed run goes on from its last checkpoint to the result of an undisturbed one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from farm.protocols import Learning
from farm.rng import Ids
from reference_methods.parts.aggregation import Totals
from reference_methods.parts.batches import Lengths, Rows, minibatches
from reference_methods.parts.checkpoints import Checkpoints, Kept
from reference_methods.parts.optimization import Loss, Optimizer, Schedule, accumulate
from reference_methods.parts.tuning import Tuning


class Trained(Protocol):
    """A policy, a scorer or a preference model."""

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...


@dataclass(frozen=True, kw_only=True)
class Descent(Tuning):
    """Epochs of minibatch gradient descent with AdamW. Methods inherit these settings and give their own defaults."""

    epochs: int = 1
    batch_size: int = 64
    """rows (responses or pairs) of one optimizer step"""
    learning_rate: float = 1e-5
    """the peak"""
    schedule: Schedule = "cosine"
    warm_up: float = 0.03
    """share of the steps over which the learning rate rises"""
    max_gradient_norm: float = 1.0
    micro_batch_tokens: int = 4096
    """most tokens, padding included, of one forward and backward pass; changes memory and speed, not the result"""

    def descend(
        self,
        loss: Loss,
        network: Trained,
        learning: Learning,
        purpose: str,
        *,
        ids: Ids,
        lengths: Lengths,
        response_tokens: NDArray[Any],
        weights: NDArray[np.float64] | None = None,
        first_loss: float | None = None,
        prepare: Callable[[Rows], None] | None = None,
        kept: Kept | None = None,
    ) -> int:
        """One optimizer step a minibatch, its gradient summed over micro-batches, its metrics logged.

        Args:
            network: what trains.
            ids: what decides the order of the rows, [n].
            lengths: what each row costs to compute, in tokens, [n].
            response_tokens: the tokens each row has in the loss, [n].
            weights: of each row, [n].
            first_loss: what the loss of the first minibatch is in theory, to within 1e-3.
            prepare: told the rows of each whole minibatch before its loss is computed, for what is a property of the
                minibatch and not of its micro-batches.
            kept: what the method itself remembers from step to step, besides the parameters.

        Returns:
            The number of steps.

        Raises:
            RuntimeError: it is not; then the policy and its reference do not agree where they must.
        """
        batches = minibatches(ids, lengths, self.batch_size, self.epochs, learning.seed, purpose)
        learning.steps(len(batches))
        weight = np.ones(len(lengths)) if weights is None else weights
        with self.spread([network]):
            optimizer = Optimizer(
                [(network.parameters(), self.learning_rate)],
                steps=len(batches),
                schedule=self.schedule,
                warm_up=self.warm_up,
                max_gradient_norm=self.max_gradient_norm,
                purpose=purpose,
            )
            checkpoints = Checkpoints(
                learning, purpose, optimizer, self.checkpoint_minutes, (self.facts(), len(batches), ids.tobytes()), kept
            )
            first = checkpoints.restore()
            for step, rows in enumerate(batches[first:], start=first):
                started = time.perf_counter()
                totals = Totals(float(weight[rows].sum()), float((weight * response_tokens)[rows].sum()))
                if prepare is not None:
                    prepare(rows)
                metrics = accumulate(loss, rows, totals, lengths, self.micro_batch_tokens, optimizer.in_step)
                if step == 0 and first_loss is not None and abs(metrics["loss"] - first_loss) > 1e-3:
                    raise RuntimeError(
                        f"{purpose}: the loss starts at {metrics['loss']:.4f} instead of {first_loss:.4f}: before "
                        "training the policy and the reference give different log-probabilities"
                    )
                metrics |= optimizer.step(metrics["loss"])
                metrics["tokens_per_second"] = float(lengths[rows].sum()) / (time.perf_counter() - started)
                checkpoints.log({"step": step, **metrics})
                checkpoints.after(step)
        return len(batches)


def part_of(learning: Learning, first_step: int) -> Learning:
    """The same for a training that is a part of another: its step 0 is logged as ``first_step``."""

    def log(metrics: dict[str, float]) -> None:
        learning.log({**metrics, "step": metrics["step"] + first_step})

    return replace(learning, log=log, steps=lambda total: None)
