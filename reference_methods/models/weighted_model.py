"""A weighted sum of the experiment's models that score: several aims as one reward.

    r(x, y) = sum of w_k r_k(x, y)

Each model has mean 0 and standard deviation 1 on samples of the SFT policy, so that the weights compare. Nothing is
fitted. Paper: RLUF (Han et al., arXiv 2505.14946) sums helpfulness, safety and P[Love], the probability that a user
likes the response; too much weight on it is gamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor

from farm.base.bounds import Bounded
from farm.policies import load, read_descriptor, write_descriptor
from farm.policies.tabular import calibrated
from farm.roles.protocols import Learning, Samples, Scorer


@dataclass(frozen=True, kw_only=True)
class WeightedModel(Bounded):
    """Sums models of the experiment."""

    weights: dict[str, float] | None = None
    """name of a model -> its weight; the experiment's reward model alone where omitted"""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.weights or {"reward_model"})

    def train(self, learning: Learning) -> WeightedScorer:
        weights = self.weights or {"reward_model": 1.0}
        names = sorted(weights)
        return WeightedScorer([learning.scorer(name) for name in names], [weights[name] for name in names])


class WeightedScorer:
    """The sum."""

    def __init__(
        self, parts: Sequence[Scorer], weights: Sequence[float], mean: float = 0.0, scale: float = 1.0
    ) -> None:
        self.parts, self.weights, self.mean, self.scale = list(parts), list(weights), mean, scale

    @property
    def body(self) -> Any:
        """Of the first model: what a pass takes of the memory is about as much for each of them."""
        return getattr(self.parts[0], "body", None)

    def scores(self, samples: Samples) -> Tensor:
        return (self._sum([part.scores(samples) for part in self.parts]) - self.mean) / self.scale

    def values(self, samples: Samples) -> Tensor:
        return (self._sum([part.values(samples) for part in self.parts]) - self.mean) / self.scale

    def _sum(self, found: Sequence[Tensor]) -> Tensor:
        return torch.stack([w * values for w, values in zip(self.weights, found, strict=True)]).sum(0)

    def calibrate(self, mean: float, scale: float) -> None:
        self.mean, self.scale = calibrated(self.mean, self.scale, mean, scale)

    def copy(self, zero_head: bool = False) -> Scorer:
        """Zeroed, the first model that has parameters, with its head at 0, such as a value model begins with."""
        if zero_head:
            trained = (part for part in self.parts if next(iter(part.parameters()), None) is not None)
            return next(trained, self.parts[0]).copy(zero_head=True)
        return WeightedScorer([part.copy() for part in self.parts], self.weights, self.mean, self.scale)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        for part in self.parts:
            yield from part.parameters()

    def save(self, folder: Path) -> None:
        write_descriptor(folder, type(self), {"weights": self.weights, "mean": self.mean, "scale": self.scale})
        for k, part in enumerate(self.parts):
            part.save(folder / f"part {k}")

    @classmethod
    def load(cls, folder: Path) -> Self:
        said = read_descriptor(folder)
        parts = [cast(Scorer, load(folder / f"part {k}")) for k in range(len(said["weights"]))]
        return cls(parts, said["weights"], said["mean"], said["scale"])
