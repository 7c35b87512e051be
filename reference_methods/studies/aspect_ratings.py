"""Ratings of aspects against one overall rating: noise that averages, a halo that does not, and false top ratings.

    answers        k aspects a_j and an emphasis e;  utility u = sum of a_j, standard deviation 1;  e ~ N(0, 1)
    aspects        s = mean over j of rating(g a_j)    error to a signal of variance 1: k s_r^2 / g^2
    overall        s = rating(u + h e)                 error h^2 + s_r^2: e is a halo, no part of the utility
    rating(v)      4 + v + s_r N(0, 1), rounded and cut to 1 .. levels
    planted        overall, but the lowest rated share of all answers has the top rating
    binary         one verdict a rated answer, on two answers to one instruction: which has the higher overall rating

Labels are all pairs of an instruction's answers with unequal ratings. Where nothing is rounded a label is right with
probability 1/2 + asin(1 / sqrt(1 + error)) / pi, so that aspects win if and only if g^2 (h^2 + s_r^2) > k s_r^2. On the
labels a linear Bradley-Terry reward model of aspects, emphasis and features that nobody values is fitted.

Paper: UltraFeedback (Cui et al., arXiv 2310.01377): answers of 4 of 17 models to each instruction, rated in four
aspects by GPT-4; reward models learn from the mean of the aspects. In its data 2,628 answers had a top overall rating
where the lowest was meant. Ours: the halo, and equal numbers of rated answers (the mean takes k numbers for each).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, Natural, NotNegative, Positive, Several, Share
from reference_methods.studies.parts import agrees, best, by_method, drawn_names, fit

ASPECTS = 4
"""k: instruction-following, truthfulness, honesty, helpfulness"""


@dataclass(frozen=True)
class AspectRatings(Bounded):
    """Tables ``labels`` (one row a pair), ``accuracy`` (of the fitted models on fresh pairs) and ``wins`` (of the best
    of n by each against a random answer); ``right`` is 1, 0, or 1/2 for equal ones."""

    slope: Positive = 2.0
    """g, of the ratings of aspects; with 2 they spread as the overall rating does"""
    halo: NotNegative = 1.0
    """h"""
    planted: Share = 0.05
    """share of false top ratings"""
    noise: NotNegative = 0.7
    """s_r"""
    levels: Several | None = 7
    """None: nothing is rounded or cut"""
    writers: Count = 17
    per_instruction: Several = 4
    """answers to an instruction, each by another writer"""
    spread: Share = 0.3
    """share of the utility's variance that lies between the writers"""
    instructions: Count = 100
    unvalued: Natural = 15
    """features of which the utility does not depend, beside the emphasis"""
    test: Count = 400
    """instructions on which the models are judged"""
    n: Several = 16

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "aspect ratings")
        answers = self.answers(self.instructions, draws)
        fresh, other = self.alone((2, self.test), draws)
        candidates, random = self.alone((self.test, self.n), draws), self.alone((self.test,), draws)
        labels, accuracy, wins = list[pd.DataFrame](), dict[str, Floats](), dict[str, Floats]()
        for method, (first, second) in self.labelled(answers, draws).items():
            labels.append(pd.DataFrame({"method": method, "right": agrees(utility(first) - utility(second), 1)}))
            v = fit(first - second, np.ones(len(first)))
            accuracy[method] = agrees(utility(fresh) - utility(other), (fresh - other) @ v)
            wins[method] = agrees(utility(best(candidates, v)) - utility(random), 1)
        requests = drawn_names("request", self.test, seed)
        tables = {name: by_method(of, "right", requests) for name, of in (("accuracy", accuracy), ("wins", wins))}
        return {"labels": pd.concat(labels, ignore_index=True), **tables}

    def alone(self, shape: tuple[int, ...], draws: np.random.Generator) -> Floats:
        """Answers of one writer, [*shape, k + 1 + unvalued]: aspects of variance 1 / k, then the others."""
        found = draws.normal(size=(*shape, ASPECTS + 1 + self.unvalued))
        found[..., :ASPECTS] /= np.sqrt(ASPECTS)
        return found

    def answers(self, instructions: int, draws: np.random.Generator) -> Floats:
        """Of different writers, [instructions, per_instruction, k + 1 + unvalued]."""
        found = self.alone((instructions, self.per_instruction), draws)
        quality = np.sqrt(self.spread) * draws.normal(size=self.writers)
        chosen = draws.random((instructions, self.writers)).argsort(1)[:, : self.per_instruction]
        found[..., :ASPECTS] *= np.sqrt(1 - self.spread)
        found[..., :ASPECTS] += quality[chosen][..., None] / ASPECTS
        return found

    def labelled(self, answers: Floats, draws: np.random.Generator) -> Mapping[str, tuple[Floats, Floats]]:
        """By treatment the answers preferred and those rejected, [pairs, ...] each."""
        aspects = self.rating(self.slope * answers[..., :ASPECTS], draws).mean(-1)
        overall = self.rating(utility(answers) + self.halo * answers[..., ASPECTS], draws)
        ratings = {"aspects": aspects, "overall": overall, "planted": self.with_false_tops(overall, draws)}
        places = np.array(list(combinations(range(answers.shape[1]), 2)))
        found = {method: ordered(answers, score, places) for method, score in ratings.items()}
        one = places[draws.integers(len(places), size=overall.size)]
        rows = np.repeat(np.arange(len(answers)), answers.shape[1])
        pairs, said = answers[rows[:, None], one], overall[rows[:, None], one]
        return {**found, "binary": ordered(pairs, said, np.array([[0, 1]]))}

    def rating(self, value: Floats, draws: np.random.Generator) -> Floats:
        said = 4 + value + self.noise * draws.normal(size=value.shape)
        return said if self.levels is None else np.clip(np.round(said), 1, self.levels)

    def with_false_tops(self, ratings: Floats, draws: np.random.Generator) -> Floats:
        """The lowest rated have the top rating; which of equal ones is drawn."""
        lowest = np.lexsort((draws.random(ratings.size), ratings.ravel()))[: round(self.planted * ratings.size)]
        found = ratings.ravel().copy()
        found[lowest] = ratings.max() if self.levels is None else self.levels
        return found.reshape(ratings.shape)


def utility(answers: Floats) -> Floats:
    return np.asarray(answers[..., :ASPECTS].sum(-1))


def ordered(answers: Floats, ratings: Floats, places: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The higher and the lower rated of the answers at these places of each instruction, [p, 2]; no equal ones."""
    higher = np.sign(ratings[:, places[:, 0]] - ratings[:, places[:, 1]])
    first, second = answers[:, places[:, 0]], answers[:, places[:, 1]]
    kept, turned = higher != 0, (higher < 0)[..., None]
    return np.where(turned, second, first)[kept], np.where(turned, first, second)[kept]
