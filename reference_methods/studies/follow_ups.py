"""Are follow-ups as good a judge as a reward model that was fitted to labels? On answers of the pocket world.

    bounded, unbounded   the verdict tokens of the world's base model after an answer (models/follow_up.py); no label
    coin                 undecided, right in one half
    elsewhere            the bounded ones, read after other answers to the same request
    labels N             logistic regression of the base model's state at the end of the answer, on N pairs whose
                         labels are Bradley-Terry of the gold utility, a share of them flipped

Two answers of the base model to a held-out request are put in order by each; ``right`` where the gold utility agrees.

Paper: FLR (Zhang et al., arXiv 2409.13948): follow-ups match reward models that were trained on human or GPT-4 labels.
The regression stands in the place of a fine-tuned reward model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, ErrorRate, Positive, Several
from farm.base.errors import UserError
from farm.policies.batches import prompt_lengths
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Samples, World
from farm.tables.turns import Prompt, prompts_of, turns_of
from reference_methods.models.follow_up import PHRASES, FollowUpScorer
from reference_methods.parts.batches import in_parts
from reference_methods.studies.parts import agrees, drawn_labels, fit

AT_ONCE = 4096
"""tokens"""


@dataclass(frozen=True)
class FollowUpJudges(Bounded):
    """Table ``accuracy``: ``method``, ``instruction`` and ``right`` (1, 0 or 1/2) of each pair of held-out answers.

    Raises:
        UserError: for a world without a language model, or whose truth is not known, or with fewer training requests
            than ``labels``.
    """

    world: World | None = None
    """the experiment's"""
    follow_ups: dict[str, dict[str, list[str]]] | None = None
    """as of ``follow_up``"""
    requests: Count = 200
    pairs: Several = 2
    """of answers to each held-out request"""
    labels: tuple[int, ...] = (500, 2000)
    """N"""
    flips: ErrorRate = 0.25
    temperature: Positive = 0.8
    """of the labels, in units of utility"""
    ridge: Positive = 1.0

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        world, policy = self.world, self.world and self.world.base_policy()
        if world is None or not (world.truth_known and isinstance(policy, LanguageModelPolicy)):
            raise UserError("follow_ups needs a world of a language model whose truth is known, such as pocket")
        requests = prompts_of(world.instructions("test", self.requests))
        asked = [prompt for prompt in requests for _ in range(2 * self.pairs)]
        samples = policy.sample(asked, seed=seed, purpose="follow_ups/answers")
        order, found = np.sign(in_pairs(gold(world, samples))), dict[str, Floats]()
        for bounded in (True, False):
            scorer = FollowUpScorer(policy, self.follow_ups or PHRASES, bounded)
            scores = in_parts(scorer.scores, samples, AT_ONCE)
            found["bounded" if bounded else "unbounded"] = scores.double().cpu().numpy()
        found["elsewhere"] = np.roll(found["bounded"].reshape(-1, 2 * self.pairs), 2, axis=1).ravel()
        found["coin"] = np.zeros(len(samples))
        if self.labels:
            states = states_of(policy, samples)
            for n, weights in self.fitted(world, policy, seed).items():
                found[f"labels {n}"] = states @ weights
        names = [turns_of(prompt)[0] for prompt in asked[::2]]
        tables = [
            pd.DataFrame({"method": name, "instruction": names, "right": agrees(in_pairs(scores), order)})
            for name, scores in found.items()
        ]
        return {"accuracy": pd.concat(tables, ignore_index=True)}

    def fitted(self, world: World, policy: LanguageModelPolicy, seed: int) -> dict[int, Floats]:
        """N -> the weights of the states, [h], fitted to the first N labelled pairs of training answers."""
        table, most = world.instructions("train", max(self.labels)), max(self.labels)
        if len(table) < most:
            raise UserError(
                f"follow_ups: {most:,} `labels` need as many training requests, and there are {len(table):,}"
            )
        prompts: list[Prompt] = [p for p in prompts_of(table) for _ in (0, 1)]
        samples = policy.sample(prompts, seed=seed, purpose="follow_ups/labelled")
        draws, difference = rng.generator(seed, "follow_ups/labels"), in_pairs(gold(world, samples))
        signs, _ = drawn_labels(difference / self.temperature, self.flips, draws)
        states = in_pairs(states_of(policy, samples))
        return {n: fit(states[:n], signs[:n], ridge=self.ridge) for n in self.labels}


def gold(world: World, samples: Samples) -> Floats:
    """The gold utility of each answer, [n]."""
    weights = world.features.gold_weights
    table = world.features(samples.prompts, samples.outputs)[list(weights)].to_numpy(np.float64)
    return np.asarray(table @ np.array(list(weights.values())))


def states_of(policy: LanguageModelPolicy, samples: Samples) -> Floats:
    """The model's last state at the end of each answer, [n, h]."""

    def compute(part: Samples) -> torch.Tensor:
        last = prompt_lengths(part) + part.lengths() - 1
        return policy.body.hidden(part, last, np.ones_like(last))

    return np.asarray(in_parts(compute, samples, AT_ONCE).double().cpu().numpy())


def in_pairs(values: Floats) -> Floats:
    """The first less the second, the third less the fourth, ..., [n / 2, ...]."""
    return values[::2] - values[1::2]
