"""Rewards of sets of answers: is a policy that learns from them more diverse at the same KL?

    answers         12 of one prompt in classes of 1, 3 and 8; p_0 uniform; quality 1 in the class of 3, else 0
    R(S)            mean quality of a set of K answers + weight x entropy of the classes in it (in nats)
    leave_one_out   A_i = K (R(S) - R(S without i)), and a step along the mean of A_i grad log p(y_i)
    rloo            A_i = r_i - mean of the other r: the qualities alone
    contrast        two sets of K answers; the i-th of one and of the other change places where that raises
                    R(S+) - R(S-), i = 1 .. K; and a step on -log sigma(h(y+_i) - h(y-_i)), h = log p / p_0
    curves          quality, entropy of the classes and KL(p || p_0) after each step, exact from the table

Of a mean of qualities, weight 0, leave-one-out credit is RLOO's advantage, step by step. The best policy at a given KL
is known in closed form: shares q of the classes ~ (p_0^m e^quality)^(1 / (m + weight)), with m set by the KL.

Paper: DRAGON (arXiv 2504.15217), in a table in place of music; the method is reference_methods/online/dragon.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, log_softmax, xlogy

from farm.base import rng
from farm.base.arrays import Bools, Floats, Ints
from farm.base.bounds import Bounded, Count, NotNegative, Positive, Several

SIZES = np.array([1, 3, 8])
CLASS = np.repeat(np.arange(3), SIZES)
"""of each answer"""
QUALITY = (CLASS == 1).astype(np.float64)


@dataclass(frozen=True)
class SetRewards(Bounded):
    """Table ``curves``: ``method``, ``step``, ``kl``, ``quality`` and ``entropy`` of the policy after each step."""

    weight: NotNegative = 1.0
    """of the entropy of a set's classes"""
    size: Several = 8
    """K"""
    sets: Count = 64
    """of one step"""
    steps: Count = 80
    rate: Positive = 1.0
    """of the steps"""
    dealt: bool = False
    """whether the classes that a set is rewarded for are dealt at random: a control"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        rows = list[dict[str, object]]()
        for method in ("leave_one_out", "rloo", "contrast"):
            draws, logits = rng.generator(seed, "set rewards"), np.zeros(len(CLASS))
            for step in range(self.steps + 1):
                if step:
                    gradient = (
                        self.contrast(logits, draws) if method == "contrast" else self.climb(logits, draws, method)
                    )
                    logits = logits + self.rate * gradient
                p = np.exp(log_softmax(logits))
                kl, entropy = float(xlogy(p, p * len(p)).sum()), float(entropy_of(shares(p)))
                rows.append({"method": method, "step": step, "kl": kl, "quality": p @ QUALITY, "entropy": entropy})
        return {"curves": pd.DataFrame(rows)}

    def drawn(self, logits: Floats, draws: np.random.Generator) -> tuple[Ints, Ints]:
        """Sets of answers and the classes that they are rewarded for, [sets, K] each."""
        answers = draws.choice(len(CLASS), size=(self.sets, self.size), p=np.exp(log_softmax(logits)))
        of = draws.permutation(CLASS)[draws.integers(0, len(CLASS), answers.shape)] if self.dealt else CLASS[answers]
        return answers, of

    def climb(self, logits: Floats, draws: np.random.Generator, method: str) -> Floats:
        """The estimated gradient by leave-one-out credit or RLOO, [12]."""
        answers, of = self.drawn(logits, draws)
        advantages = leave_one_out(QUALITY[answers]) if method == "rloo" else self.credit(answers, of)
        return mean_gradient(logits, answers, advantages)

    def credit(self, answers: Ints, of: Ints) -> Floats:
        """K (R(S) - R(S without i)), [sets, K]."""
        quality, counts = QUALITY[answers], counted(of)
        others = (quality.sum(1, keepdims=True) - quality) / (self.size - 1)
        without = counts[:, None] - np.eye(3)[of]
        whole = self.reward(quality.mean(1), counts)[:, None]
        return self.size * (whole - self.reward(others, without))

    def reward(self, quality: Floats, counts: Floats) -> Floats:
        """R of sets by their mean quality [...] and how many answers of each class they have [..., 3]."""
        return quality + self.weight * entropy_of(counts / counts.sum(-1, keepdims=True))

    def contrast(self, logits: Floats, draws: np.random.Generator) -> Floats:
        """The estimated gradient from a positive and a negative set, [12]."""
        (first, of_first), (second, of_second) = self.drawn(logits, draws), self.drawn(logits, draws)
        swapped = self.swapped(first, of_first, second, of_second)
        better, worse = np.where(swapped, second, first), np.where(swapped, first, second)
        pull = expit(logits[worse] - logits[better])  # p_0 is uniform and falls out of h(y+) - h(y-)
        up, down = (np.bincount(side.ravel(), pull.ravel(), len(logits)) for side in (better, worse))
        return np.asarray((up - down) / better.size)

    def swapped(self, first: Ints, of_first: Ints, second: Ints, of_second: Ints) -> Bools:
        """Which places of two sets change sides, one after the other, [sets, K]."""
        found = np.zeros(first.shape, dtype=np.bool_)
        plus, minus = counted(of_first), counted(of_second)
        lead = QUALITY[first].mean(1) - QUALITY[second].mean(1)
        for i in range(self.size):
            move = np.eye(3)[of_second[:, i]] - np.eye(3)[of_first[:, i]]
            gain = 2 * (QUALITY[second[:, i]] - QUALITY[first[:, i]]) / self.size
            after = self.reward(lead + gain, plus + move) - self.reward(np.zeros(len(lead)), minus - move)
            before = self.reward(lead, plus) - self.reward(np.zeros(len(lead)), minus)
            found[:, i] = change = after > before + 1e-12
            lead, plus = lead + change * gain, plus + change[:, None] * move
            minus = minus - change[:, None] * move
        return found


def leave_one_out(rewards: Floats) -> Floats:
    """r_i less the mean of the others of its set, [sets, K]."""
    return (rewards - rewards.mean(1, keepdims=True)) * rewards.shape[1] / (rewards.shape[1] - 1)


def mean_gradient(logits: Floats, answers: Ints, advantages: Floats) -> Floats:
    """The mean of A grad log p(y), [12]."""
    taken = np.bincount(answers.ravel(), advantages.ravel(), len(logits)) / answers.size
    return np.asarray(taken - np.exp(log_softmax(logits)) * advantages.mean())


def counted(of: Ints) -> Floats:
    """How many answers of each class are in each set, [sets, 3]."""
    return np.eye(3)[of].sum(1)


def shares(p: Floats) -> Floats:
    """The probability of each class, [3]."""
    return np.bincount(CLASS, p, 3).astype(np.float64)


def entropy_of(shares: Floats) -> Floats:
    """In nats, over the last axis."""
    return np.asarray(-xlogy(shares, shares).sum(-1))
