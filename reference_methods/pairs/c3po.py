"""C3PO: feedback in words that holds in a scope, learnt there and not beyond.

    in scope     y_w, y_l: two samples of the SFT policy, with and without what the feedback asks for
    near, rest   responses of the SFT policy to prompts near the scope, and to all others
    L = L_DPO(in scope) + hard NLL(near) + soft NLL(rest)

The NLL terms are the forward KL to the SFT policy up to a constant, so at the start their gradient is 0 on average.
They are means over tokens, where DPO sums, so their relative weight depends on the length of responses.

Paper: Stephan et al. (arXiv 2402.10893), reinforcement learning from verbal feedback; weights .1 and .2, beta .1, 960
examples of each set, learning rate 5e-5 and batch 16 from its code. There a large language model writes prompts of the
three sets and revises answers.
Deviations: the prompts are those of the world, sorted by a column that says what is asked; in place of revisions, the
first of ``samples`` draws that does what the feedback asks (``feature`` present, or with ``wanted: false`` absent) is
chosen and the first that does not is rejected; prompts whose draws are all alike give no pair.
With both weights 0, or a scope of everything, it is DPO. ``objective: sft`` imitates the chosen side in place of DPO:
the distillation that the paper compares with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.base import rng
from farm.base.bounds import Count, NotNegative, Several, Share
from farm.base.errors import UserError, nearest
from farm.roles.protocols import Learning, Policy, Samples, World
from farm.tables.turns import Prompt, prompt_ids, prompts_of
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.batches import Batch, Rows, TrainingRows, minibatches, prompt_stream, sampled
from reference_methods.parts.pairs import PairsWithReference, pair_metrics
from reference_methods.parts.preferences import Preferences
from reference_methods.parts.scopes import within
from reference_methods.parts.trainer import Trainer

SETS = ("in scope", "near", "rest")


@dataclass(frozen=True, kw_only=True)
class C3PO(DPO):
    """Trains the policy on what it says itself, by the feedback."""

    needs: ClassVar[frozenset[str]] = frozenset()

    world: World | None = None
    """the experiment's: its features tell whether a response does what is asked"""
    feature: str = "length"
    """of the world: a response has it where it is above 0"""
    wanted: bool = True
    """whether the feedback asks for the feature, or to leave it out"""
    scope: dict[str, Any] = field(default_factory=dict)
    """column of the prompts -> a value or several; a prompt is in scope if it has one of each; empty: everything is"""
    near: dict[str, Any] = field(default_factory=dict)
    """likewise, of prompts near the scope; empty: none is"""
    size: Count = 960
    """prompts drawn for each set"""
    samples: Several = 8
    """drawn for a pair"""
    soft: NotNegative = 0.2
    """weight of the rest"""
    hard: NotNegative = 0.1
    """weight of what is near"""
    objective: Literal["dpo", "sft"] = "dpo"
    flips: Share = 0.0
    """share of pairs that are turned round, exactly: at one half nothing is said of the feature"""
    epochs: Count = 1
    batch_size: Count = 16
    """of each set"""
    learning_rate: NotNegative = 5e-5

    def train(self, learning: Learning) -> Policy:
        pairs, others = self.sets(learning)
        policy = self.start(learning)
        with Trainer(self, learning, "c3po", [(policy, self.learning_rate)]) as trainer:
            data = PairsWithReference.of(pairs, trainer, learning.reference)
            sources = [pairs.training_rows(), *map(_rows, others)]
            columns = (np.concatenate([getattr(s, c) for s in sources]) for c in ("ids", "lengths", "tokens"))
            everything = TrainingRows(*columns)
            dealt = self.dealt(sources, learning.seed)
            for step in trainer.steps(len(dealt), len(dealt), of=everything.ids.tobytes()):
                parts = [source.batch(rows) for source, rows in zip(sources, dealt[step], strict=True)]
                rows = np.concatenate([part.rows + start for part, start in zip(parts, _starts(parts), strict=True)])
                trainer.update(everything.batch(rows), partial(self.total, policy, data, others, parts))
        return policy

    def sets(self, learning: Learning) -> tuple[Preferences, list[Samples]]:
        """Pairs in scope, and as many responses near it and to the rest; none of a set that is empty or without
        weight.

        Raises:
            UserError: for a column or a feature that there is not, or where no prompt in scope gives a pair.
        """
        table = learning.prompts
        inside, near = within(table, self.scope, True), within(table, self.near, False)
        which = np.where(inside, 0, np.where(near, 1, 2))
        prompts = [self._drawn(table[which == k], k, learning) for k in range(3)]
        pairs = self.pairs(learning, prompts[0])
        others = []
        for k, weight in ((1, self.hard), (2, self.soft)):
            asked = prompts[k][: len(pairs)] if weight else []
            own = partial(sampled, learning.policy, seed=learning.seed, purpose=f"c3po/{SETS[k]}")
            others.append(own(asked) if asked else pairs.first.select([]))
        return pairs, others

    def _drawn(self, table: pd.DataFrame, which: int, learning: Learning) -> list[Prompt]:
        if not len(table):
            return []
        return next(prompt_stream(prompts_of(table), self.size, 1, learning.seed, f"c3po/{SETS[which]}"))

    def pairs(self, learning: Learning, prompts: Sequence[Prompt]) -> Preferences:
        repeated = [prompt for prompt in prompts for _ in range(self.samples)]
        samples = sampled(learning.policy, repeated, seed=learning.seed, purpose="c3po/in scope")
        obeys = (self._measured(samples) > 0) == self.wanted
        groups = obeys.reshape(-1, self.samples)
        told = np.flatnonzero(groups.any(1) & ~groups.all(1))
        if not len(told):
            raise UserError(f"c3po: no prompt in scope has responses with and without `{self.feature}`; set `scope`")
        chosen = samples.select(told * self.samples + groups[told].argmax(1))
        rejected = samples.select(told * self.samples + groups[told].argmin(1))
        ids = rng.combine(prompt_ids(chosen.prompts), rng.text_ids(chosen.outputs), rng.text_ids(rejected.outputs))
        label = np.ones(len(ids), np.float32)
        label[np.argsort(rng.uniform(learning.seed, "c3po/flips", ids))[: round(self.flips * len(ids))]] = 0.0
        return Preferences(chosen, rejected, label, ids)

    def _measured(self, samples: Samples) -> NDArray[np.float64]:
        if self.world is None:
            raise UserError("c3po: a world is needed, whose features tell what a response does")
        table = self.world.features(samples.prompts, samples.outputs)
        if self.feature not in table:
            raise UserError(f"c3po: there is no feature `{self.feature}`; {nearest(self.feature, table.columns)}")
        return table[self.feature].to_numpy(np.float64)

    def dealt(self, sources: Sequence[TrainingRows], seed: int) -> list[list[Rows]]:
        """The rows of each set in each step."""
        given = (self.batch_size, self.epochs, seed)
        each = [minibatches(s.ids, s.lengths, *given, f"c3po/{SETS[k]}") for k, s in enumerate(sources)]
        nothing = np.zeros(0, dtype=np.int64)
        return [[rows[step] if rows else nothing for rows in each] for step in range(len(each[0]))]

    def total(
        self, policy: Policy, data: PairsWithReference, others: Sequence[Samples], parts: Sequence[Batch], batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a part of a step's rows, counted through the sets; ``parts`` are the whole step's of each set."""
        shares: dict[str, Tensor] = {}
        terms = []
        for part, rows, k in _split(batch.rows, parts):
            own = replace(part, rows=rows)
            if k == 0 and self.objective == "dpo":
                pairs = data.under(policy, own)
                losses, margin = self.pair_loss(pairs)
                terms.append(own.mean(losses))
                shares |= pair_metrics(pairs, margin, own)
                continue
            samples = _preferred(data.pairs, rows) if k == 0 else others[k - 1].select(rows)
            if k == 0:  # the tokens of a pair are those of both sides, and one is imitated
                tokens = float(_preferred(data.pairs, part.rows).lengths().sum())
                own = replace(own, totals=replace(own.totals, tokens=tokens))
            log_probabilities, mask = policy.log_probabilities(samples)
            nll = own.mean(-log_probabilities, mask)
            terms.append((1.0, self.hard, self.soft)[k] * nll)
            shares[f"{SETS[k].replace(' ', '_')}_nll"] = nll
        return torch.stack(terms).sum(), shares


def _preferred(pairs: Preferences, rows: Rows) -> Samples:
    """The side of each of these pairs that its label prefers."""
    return pairs.both(rows).select(np.arange(len(rows)) + len(rows) * (pairs.p_first[rows] < 0.5))


def _rows(samples: Samples) -> TrainingRows:
    ids = rng.combine(prompt_ids(samples.prompts), rng.text_ids(samples.outputs))
    return replace(TrainingRows.of(samples), ids=ids)


def _starts(parts: Sequence[Batch]) -> Rows:
    """Where the rows of each set begin among those of all."""
    return np.cumsum([0, *(len(part.source.ids) for part in parts[:-1])])


def _split(rows: Rows, parts: Sequence[Batch]) -> Iterator[tuple[Batch, Rows, int]]:
    """The rows of each set that there are, counted within it."""
    for k, (part, start) in enumerate(zip(parts, _starts(parts), strict=True)):
        own = rows[(rows >= start) & (rows < start + len(part.source.ids))] - start
        if len(own):
            yield part, own, k
