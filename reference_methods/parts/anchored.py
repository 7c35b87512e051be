"""Rewards relative to a fixed response to each prompt, and rewards moved by a constant of each prompt.

    anchored    R(x, y) = log-odds of P(y > y_a | x), or P(y > y_a | x) itself
    shifted     R(x, y) = r(x, y) + c(x),   c(x) ~ N(0, deviation^2), drawn by the prompt

Pairs say nothing of c(x), so a reward model that was fitted to them has any. Of an anchored reward, and of an advantage
over other responses to the same prompt, it is no part; a value network has to learn it.

The anchor y_a is the first response that a given policy writes to the prompt, so every prompt has one, also one that
was never seen in training, and it is the same in whatever order prompts come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from farm.base import rng
from farm.base.bounds import NotNegative
from farm.policies import load, read_descriptor, write_descriptor
from farm.policies.batches import onto
from farm.roles.protocols import Policy, PreferenceModel, Samples, Scorer
from farm.tables.turns import Prompt, prompt_ids

_WHOLE = "a reward computed from another model is of whole responses: it has no values, calibration or head of its own"


class Derived:
    """The part of a scorer that a reward computed from another model has: no parameters of its own."""

    def values(self, samples: Samples) -> Tensor:  # noqa: ARG002 (the role's signature)
        raise TypeError(_WHOLE)

    def calibrate(self, mean: float, scale: float) -> None:  # noqa: ARG002
        raise TypeError(_WHOLE)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return iter(())


@dataclass(frozen=True)
class Anchored(Derived):
    """How far a preference model puts a response above the anchor of its prompt."""

    model: PreferenceModel
    policy: Policy
    """who writes the anchors"""
    seed: int
    temperature: float = 1.0
    """of the anchors; 0: the likeliest token each time"""
    probability: bool = False
    """whether the reward is the probability, which saturates, in place of its log-odds"""
    _written: dict[Prompt, Samples] = field(default_factory=dict, init=False, repr=False, compare=False)

    def scores(self, samples: Samples) -> Tensor:
        logits = self.model.logits(samples, self.anchors(samples.prompts))
        return torch.sigmoid(logits) if self.probability else logits

    def anchors(self, prompts: Sequence[Prompt]) -> Samples:
        """The anchor of each prompt; each is written once. Of several processes each writes those of its own rows, and
        waits for no other: this policy is not the one that trains, so it is never spread over them."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._written]
        if new:
            given = {"seed": self.seed, "purpose": "anchor"}
            written = self.policy.sample(new, temperature=self.temperature, **given)  # type: ignore[arg-type]
            self._written.update({prompt: written.select([i]) for i, prompt in enumerate(new)})
        return Samples.concatenate([self._written[prompt] for prompt in prompts])

    def copy(self, zero_head: bool = False) -> Anchored:
        if zero_head:
            raise TypeError(_WHOLE)
        return Anchored(self.model, self.policy, self.seed, self.temperature, self.probability)

    @property
    def scorer(self) -> Scorer | None:
        """The reward model inside, where the preferences are one's."""
        return getattr(self.model, "scorer", None)

    def save(self, folder: Path) -> None:
        settings = {"seed": self.seed, "temperature": self.temperature, "probability": self.probability}
        write_descriptor(folder, Anchored, settings)
        self.model.save(folder / "model")
        self.policy.save(folder / "policy")

    @classmethod
    def load(cls, folder: Path) -> Anchored:
        said, model, policy = read_descriptor(folder), load(folder / "model"), load(folder / "policy")
        assert isinstance(model, PreferenceModel) and isinstance(policy, Policy)
        return cls(model, policy, said["seed"], said["temperature"], said["probability"])


@dataclass(frozen=True)
class Shifted(Derived):
    """A reward model's score and a constant of the prompt."""

    scorer: Scorer
    deviation: NotNegative
    seed: int

    def scores(self, samples: Samples) -> Tensor:
        found = self.scorer.scores(samples)
        constants = self.deviation * rng.normal(self.seed, "constant of a prompt", prompt_ids(samples.prompts))
        return found + onto(constants, found.device).to(found.dtype)

    def copy(self, zero_head: bool = False) -> Shifted:
        if zero_head:
            raise TypeError(_WHOLE)
        return Shifted(self.scorer.copy(), self.deviation, self.seed)

    def save(self, folder: Path) -> None:
        write_descriptor(folder, Shifted, {"deviation": self.deviation, "seed": self.seed})
        self.scorer.save(folder / "scorer")

    @classmethod
    def load(cls, folder: Path) -> Shifted:
        said, scorer = read_descriptor(folder), load(folder / "scorer")
        assert isinstance(scorer, Scorer)
        return cls(scorer, said["deviation"], said["seed"])


def spread_between(scores: Tensor) -> float:
    """The standard deviation of what the prompts' mean scores are, estimated from k responses to each of n, [n, k]:
    the variance of the observed means less the variance within over k, at least 0.

    >>> spread_between(torch.tensor([[1.0, 1.0], [3.0, 3.0]])) == 2**0.5
    True
    """
    rows = scores.double().cpu().numpy()
    excess = rows.mean(1).var(ddof=1) - rows.var(1, ddof=1).mean() / rows.shape[1]
    return float(np.sqrt(max(excess, 0.0)))
