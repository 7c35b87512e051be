"""General preference model (GPM): responses are points of k planes; the turn from one to the other says who is ahead.

    v(x, y) in R^2k,    s(y_1 > y_2) = sum over planes of (v_1a v_2b - v_1b v_2a),    P = sigma(s / temperature)

The score changes its sign with the order by construction. Any antisymmetric table of scores among K responses is
representable with 2k >= its rank (k = K/2 always suffices), cycles among them, where a reward model can rank only; a
reward model is the special case v = (r, 1). K responses take K embeddings for all K^2 preferences; a model that reads
pairs takes K^2 passes.

Paper: Zhang et al. (arXiv 2410.02197): a linear head at the last token, 2, 4, 6 or 8 dimensions, learning rate 2e-6 to
1e-5, batch 32, 2 epochs, temperature 0.1 with vectors of length 1.
Deviations: no gate by the prompt; vectors are not brought to length 1 unless ``normalise``, which bounds the scores and
so what can be represented.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from farm.base.bounds import Count, Positive
from farm.policies import read_descriptor, write_descriptor
from farm.roles.protocols import Learning, Policy, Samples
from reference_methods.parts.games.models import Embedder, PreferenceFit, embedder, load_embedder


@dataclass(frozen=True, kw_only=True)
class GeneralPreferenceModel(PreferenceFit):
    """Fits one to ``preferences``."""

    planes: Count = 4
    """k; half the number of dimensions"""
    normalise: bool = False
    temperature: Positive = 1.0

    def begin(self, policy: Policy, seed: int) -> Planes:
        return Planes(embedder(policy, 2 * self.planes, seed), self.normalise, self.temperature)

    def train(self, learning: Learning) -> Planes:
        model = self.begin(learning.policy, learning.seed)
        self.fit(model, learning)
        return model


@dataclass(frozen=True)
class Planes:
    """The fitted model, a :class:`~reference_methods.parts.games.feedback.PreferenceModel`."""

    embed: Embedder
    normalise: bool
    temperature: float

    def logits(self, first: Samples, second: Samples) -> Tensor:
        """s / temperature of each pair, [B]; both sides are embedded in one pass."""
        both = self._vectors(Samples.concatenate([first, second]))
        return turn(both[: len(first)], both[len(first) :]) / self.temperature

    def matrix(self, samples: Samples) -> Tensor:
        """s / temperature of every response against every other, [n, n], from n embeddings."""
        vectors = self._vectors(samples)
        return turn(vectors[:, None], vectors[None]) / self.temperature

    def _vectors(self, samples: Samples) -> Tensor:
        vectors = self.embed(samples)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalise else vectors

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.embed.parameters()

    def save(self, folder: Path) -> None:
        write_descriptor(folder, Planes, {"normalise": self.normalise, "temperature": self.temperature})
        self.embed.save(folder / "embedder")

    @classmethod
    def load(cls, folder: Path) -> Planes:
        settings = read_descriptor(folder)
        return cls(load_embedder(folder / "embedder"), settings["normalise"], settings["temperature"])


def turn(first: Tensor, second: Tensor) -> Tensor:
    """sum over planes of the cross product of two vectors of 2k numbers, [..., 2k] -> [...]."""
    return (first[..., 0::2] * second[..., 1::2] - first[..., 1::2] * second[..., 0::2]).sum(-1)
