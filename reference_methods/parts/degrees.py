"""Responses that say less and less: a share of the key tokens is left out, by degrees.

    key tokens    of a response the rarest among all responses: those with the highest ln(n / responses that have it)
    degree d      the first round(d / D x most x T) of them are left out; 0 is the response itself
    at random     as many are left out, drawn from all tokens: the same lengths, and other content

The end of the sequence is never left out. Tokens in, tokens out; what is left is no grammatical text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Floats
from farm.roles.protocols import Samples, Tokens


@dataclass(frozen=True)
class Degrees:
    """How to leave tokens out."""

    rarity: Floats
    """ln(n / responses that have it) of each token, [V]; what none has is the rarest"""
    ends: frozenset[int]
    levels: int
    """D"""
    most: float
    """the share of a response's tokens that is left out at degree D"""
    at_random: bool = False

    @classmethod
    def of(
        cls,
        responses: Sequence[Tokens],
        vocabulary: int,
        ends: Collection[int],
        levels: int,
        most: float,
        at_random: bool,
    ) -> Degrees:
        """With the rarity of tokens among these responses."""
        counts = np.zeros(vocabulary)
        for tokens in responses:
            counts[np.unique(tokens)] += 1
        return cls(np.log(max(1, len(responses)) / np.maximum(counts, 0.5)), frozenset(ends), levels, most, at_random)

    def left_out(self, tokens: Tokens, degree: int, draws: Floats) -> Tokens:
        """A response at a degree; equally rare tokens go in the order of the draws, [T]."""
        free = np.flatnonzero(~np.isin(tokens, list(self.ends)))
        number = min(len(free), round(degree / self.levels * self.most * len(free)))
        value = np.zeros(len(free)) if self.at_random else -self.rarity[tokens[free]]
        gone = free[np.lexsort((draws[free], value))[:number]]
        return np.delete(tokens, gone)

    def copies(self, samples: Samples, ids: rng.Ids, seed: int, purpose: str) -> tuple[Samples, NDArray[np.int64]]:
        """One copy of each response at a degree drawn for it, and the degrees 0 .. D, [B].

        Args:
            ids: of the responses; the draws are keyed by (seed, purpose, id).
        """
        degrees = np.minimum((rng.uniform(seed, purpose, ids) * (self.levels + 1)).astype(np.int64), self.levels)
        out = []
        for tokens, degree, one in zip(samples.response_tokens, degrees, ids, strict=True):
            draws = rng.uniform(seed, f"{purpose}/order", one, np.arange(len(tokens), dtype=np.uint64))
            out.append(self.left_out(tokens, int(degree), draws))
        nothing = [np.zeros(len(tokens), np.float32) for tokens in out]
        return replace(samples, response_tokens=out, log_probabilities=nothing), degrees
