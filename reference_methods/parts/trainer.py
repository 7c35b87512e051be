"""What every training needs and none is about: the optimizer and its schedule, micro-batches, the processes that train
together, checkpoints, the log, early alarms. A method's ``train`` is a loop over a :class:`Trainer` and holds the rest:

    with Trainer(self, learning, "dpo", [(policy, self.learning_rate)]) as trainer:
        for batch in trainer.batches(pairs.training_rows()):
            trainer.update(batch, loss)

A *step* is one line of the log and one place to go on from. It is a batch of rollouts with a few updates, one minibatch
of rows that do not change, or a round with a training inside (:meth:`Trainer.part`). Every draw is keyed by the number
of its step, so where a training stopped is a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

from farm.base.errors import UserError
from farm.policies import trunk
from farm.roles.protocols import Learning, Samples
from farm.tables.turns import Prompt, prompts_of
from reference_methods.parts.batches import (
    Batch,
    Rows,
    TrainingRows,
    in_parts,
    minibatches,
    prompt_stream,
    tokens_at_once,
)
from reference_methods.parts.checkpoints import Checkpoints, StateDicts
from reference_methods.parts.optimization import Metrics, Optimizer, accumulate
from reference_methods.parts.precision import AtStart, check_learns
from reference_methods.parts.training import Offline, OnPolicy, Training

Loss = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]
"""Given a part of a minibatch: its share of the loss and of each metric; shares add up (:meth:`Batch.mean`)."""

SAME = 1e-3
"""how far a metric may be from what it must be before the first update, besides rounding"""


class Trainer:
    """One training of some networks. To be left at any step (``break``), its loop stands in a ``with`` statement, which
    writes the open line and makes networks whole that were spread over processes, unless an error left it.

    Args:
        settings: what trains and how it is stepped.
        purpose: names the training in messages and checkpoints, and keys its draws.
        networks: all that is updated, each with its peak learning rate, the policy first.
        at_start: what metrics must be before the first update; anything else stops the training.
        state: what a checkpoint holds besides, by name; what has no ``load_state_dict`` is left out.
    """

    def __init__(
        self,
        settings: Training,
        learning: Learning,
        purpose: str,
        networks: Sequence[tuple[Any, float]] = (),
        at_start: Mapping[str, AtStart] | None = None,
        state: Mapping[str, object] | None = None,
    ) -> None:
        self.settings, self.learning, self.purpose = settings, learning, purpose
        asked = {f"asked {kind}": asker for kind, asker in learning.asked.items()}
        self._networks, self._at_start, self._state = networks, at_start or {}, StateDicts({**asked, **(state or {})})
        self.same, self.step = SAME, 0
        self._entered = self._in_step = False
        self._updates, self._logged = list[Metrics](), Metrics()
        self._started, self._tokens = 0.0, 0

    def __enter__(self) -> Self:
        check_learns((network for network, _ in self._networks), self.purpose)
        self._entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._entered = False
        if error is None:  # after an error the processes may not be at one place, and to gather takes all of them
            if self._in_step:
                self._end_step()
            self.settings.gather(network for network, _ in self._networks)

    # --- steps --------------------------------------------------------------------------------------------------------

    def steps(self, number: int, updates: int = 0, of: object = None, lines: int | None = None) -> Iterator[int]:
        """The numbers of the steps that are still to do; afterwards ``step`` is ``number``.

        What was logged in a step is written when the next is asked for, and then a checkpoint if it is time.

        Args:
            updates: of the networks, in all steps.
            of: what a checkpoint must be of.
            lines: of the log in all, where a step has more than one of them for the parts in it.
        """
        if not self._entered:
            raise RuntimeError(f"{self.purpose}: a Trainer's loop stands in a `with` statement: `with Trainer(...) as`")
        self.learning.steps(number if lines is None else lines)
        settings = self.settings
        settings.shard_networks(network for network, _ in self._networks)
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
        self._checkpoints = Checkpoints(self.learning, self.purpose, self._optimizer, minutes, facts, self._state)
        for step in range(self._checkpoints.restore(), number):
            self.step = step
            self._in_step, self._updates, self._logged = True, [], {}
            self._started, self._tokens = time.perf_counter(), 0
            with trunk.kept(isinstance(settings, OnPolicy)):  # rows that do not change are read once a step
                yield step
            self._end_step()
        self.step = number

    def _end_step(self) -> None:
        self._write_line()
        self._checkpoints.after(self.step)
        self._in_step = False

    def _write_line(self) -> None:
        line = self.line()
        self._updates, self._logged = [], {}
        if line:
            self._checkpoints.log(line)

    def batches(self, source: TrainingRows) -> Iterator[Batch]:
        """A step for each minibatch of rows that do not change, in ``epochs`` keyed orders."""
        given = self.settings
        assert isinstance(given, Offline)
        rows = minibatches(source.ids, source.lengths, given.batch_size, given.epochs, self.learning.seed, self.purpose)
        for step in self.steps(len(rows), len(rows), of=source.ids.tobytes()):
            yield source.batch(rows[step])

    def prompts(self, each: int) -> Iterator[list[Prompt]]:
        """A step for each ``each`` prompts, in a keyed order; all come before any comes again."""
        given, prompts = self.settings, prompts_of(self.learning.prompts)
        assert isinstance(given, OnPolicy)
        if not prompts:
            raise UserError(f"{self.purpose}: there are no prompts to sample for")
        asked = list(prompt_stream(prompts, each, given.steps, self.learning.seed, self.purpose))
        for step in self.steps(given.steps, given.steps * given.epochs * given.minibatches, of=prompts):
            yield asked[step]

    # --- in a step ----------------------------------------------------------------------------------------------------

    def minibatches(self, data: Samples | TrainingRows) -> Iterator[Batch]:
        """``minibatches`` of this step's rows, ``epochs`` times; none of no rows."""
        source, given = TrainingRows.of(data, by_prompt=True) if isinstance(data, Samples) else data, self.settings
        assert isinstance(given, OnPolicy)
        size = -(-len(source.ids) // given.minibatches)
        if size:
            for rows in minibatches(
                source.ids, source.lengths, size, given.epochs, self.learning.seed, self.key(), bucket=1
            ):
                yield source.batch(rows)

    def update(self, batch: Batch, loss: Loss) -> Metrics:
        """One optimizer step on a minibatch, in micro-batches, of which each process takes a share."""
        if not self._in_step:
            raise RuntimeError(f"{self.purpose}: `update` stands outside of the loop over the trainer's steps")
        source, tokens, optimizer = batch.source, self.tokens, self._optimizer

        def of(rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
            return loss(replace(batch, rows=rows))

        shares = accumulate(of, batch.rows, source.lengths, tokens, optimizer.sharded, source.prompts)
        check = partial(self._check_start, batch) if optimizer.steps_taken == 0 else None
        metrics = optimizer.step(shares, check)
        self._updates.append(metrics)
        self._tokens += int(source.lengths[batch.rows].sum())
        return metrics

    def _check_start(self, batch: Batch, metrics: Metrics) -> None:
        totals = batch.totals
        for name, expected in self._at_start.items():
            allowed = self.same + expected.tolerance(self._networks[0][0], totals.sequences, totals.tokens)
            if not abs(metrics[name] - expected.value) <= allowed:
                raise RuntimeError(
                    f"{self.purpose}: before the first update {name} must be {expected.value:.4g} and is "
                    f"{metrics[name]:.4f} (rounding allows {allowed:.2g}): what sampled, or the reference, and what "
                    "trains give different log-probabilities"
                )

    def compute(self, what: Callable[[Samples], Tensor], samples: Samples) -> Tensor:
        """``what`` of all samples, without gradient, in parts that fit into memory; each process computes a share."""
        return in_parts(what, samples, self.tokens, together=True)

    def log(self, **metrics: float) -> None:
        """Add to the line of this step."""
        self._logged |= metrics

    def snapshot(self) -> Any:
        """Where networks, optimizer and metrics of updates are, for :meth:`restore`."""
        return self._optimizer.snapshot(), len(self._updates), self._tokens

    def restore(self, snapshot: Any) -> None:
        """As if there had been no update since. What was logged, or asked of an annotator, stays."""
        self._optimizer.restore(snapshot[0])
        self._updates, self._tokens = self._updates[: snapshot[1]], snapshot[2]

    @cached_property
    def tokens(self) -> int:
        """The most tokens of a micro-batch."""
        networks = [network for network, _ in self._networks]
        return tokens_at_once(
            self.settings.micro_batch_tokens, *networks or [self.learning.policy], training=bool(networks)
        )

    @property
    def sharded(self) -> bool:
        """Whether networks are spread over processes: then a loss is also called for nothing, on others' rows."""
        return self._optimizer.sharded

    def key(self, purpose: str = "") -> str:
        """What this step's draws are keyed by."""
        return f"{self.purpose}{purpose and '/'}{purpose}/step {self.step}"

    def part(self, name: str) -> Learning:
        """What a training inside this step is given: its lines follow those of this step, which is written as far as it
        is. Stopped in the part, the training goes on there; the checkpoint of the whole step replaces the part's."""
        self._write_line()
        return self._checkpoints.part(f"{self.step} {name}")

    def line(self) -> Metrics:
        """What is logged of this step."""
        if not self._updates:
            return self._logged
        means = {name: float(np.mean([metrics[name] for metrics in self._updates])) for name in self._updates[0]}
        speed = self._tokens / (time.perf_counter() - self._started)
        return {**means, "tokens_per_second": speed, **self._logged}
