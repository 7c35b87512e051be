"""Preferences in a context: a pair that turns round between two contexts, and what a model makes of it.

    responses   phi in R^4, N(0, 1): three styles and quality
    contexts    three; each loves one style (2.4), accepts the next (.9) and dislikes the third (-2), in turn: w_c
    labels      P(y > y' | c) = sigma(w_c . (phi - phi') / T),  the context drawn for each pair
    none        Bradley-Terry of v . phi                        the same answer in every context
    given       of (v + v_c) . phi, with the context
    inferred    the same, asked in the right context with probability ``inference``, else in one of the others
    shuffled    fitted with the contexts dealt anew among the pairs
    mixture     mean over c of sigma((v + v_c) . (phi - phi')):  the population, without a context

Known answers: on pairs whose preference turns round between two contexts a model without context is right in exactly
one of them, .50. Two thirds of the people prefer style 1 to 2, 2 to 3 and 3 to 1: the mixture can say so, and one
Bradley-Terry model cannot, for its three log-odds sum to 0.

Paper: Pitis et al. (arXiv 2407.14916). Error splits into that of inferring a context and that of predicting within it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, NotNegative, Positive, Share
from reference_methods.studies.parts import agrees, by_method, drawn_names

CONTEXTS = 3
TASTE = np.array([2.4, 0.9, -2.0])
"""of the first context, for the three styles; that of the next is turned by one"""


@dataclass(frozen=True)
class Contexts(Bounded):
    """Tables ``reversals`` and ``pairs`` (``right``: the share of contexts, or the drawn one, in which a model prefers
    what is preferred), ``population`` (``error`` of its probability) and ``cycle`` (``least`` of P - 1/2 along it)."""

    pairs: Count = 10_000
    held_out: Count = 500
    differ: NotNegative = 1.0
    """how much of the tastes depends on the context; at 0 there is one taste"""
    temperature: Positive = 1.5
    """T"""
    inference: Share = 0.7
    """how often a context is inferred right"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws, tastes = rng.generator(seed, "contexts"), self.tastes()
        x, context = draws.normal(size=(self.pairs, 4)) * 2**0.5, draws.integers(CONTEXTS, size=self.pairs)
        chance = expit((x * tastes[context]).sum(1) / self.temperature)
        label = np.where(draws.uniform(size=self.pairs) < chance, 1.0, -1.0)
        fitted = {
            "none": np.tile(fit(x, label), (CONTEXTS, 1)),
            "given": in_contexts(x, context, label),
            "shuffled": in_contexts(x, draws.permutation(context), label),
        }
        fresh, asked = draws.normal(size=(self.held_out, 4)) * 2**0.5, draws.integers(CONTEXTS, size=self.held_out)
        right = {name: in_order(model, tastes, fresh) for name, model in fitted.items()}
        right["inferred"] = self.inferred(fitted["given"], fresh)
        turned, one, other = reversals(tastes, fresh)
        both = {name: (found[turned, one] + found[turned, other]) / 2 for name, found in right.items()}
        drawn = {name: found[np.arange(self.held_out), asked] for name, found in right.items()}
        said = {"none": fitted["none"], "mixture": fitted["given"]}
        true = population(tastes / self.temperature, fresh)
        errors = {name: np.abs(population(model, fresh) - true) for name, model in said.items()}
        least = {name: population(model, CIRCLE).min() - 0.5 for name, model in said.items()}
        pairs = drawn_names("pair", self.held_out, seed)
        return {
            "reversals": by_method(both, "right", [pairs[n] for n in turned]),
            "pairs": by_method(drawn, "right", pairs),
            "population": by_method(errors, "error", pairs),
            "cycle": pd.DataFrame({"method": list(least), "least": list(least.values())}),
        }

    def tastes(self) -> Floats:
        """w_c, [contexts, 4]; the last weight is that of quality, 1 in each context."""
        turned = np.stack([np.roll(TASTE, c) for c in range(CONTEXTS)])
        styles = turned.mean(0) + self.differ * (turned - turned.mean(0))
        return np.column_stack([styles, np.ones(CONTEXTS)])

    def inferred(self, given: Floats, x: Floats) -> Floats:
        """How often a guess at the context leads to the right answer in each context, [n, contexts]."""
        tastes, others = self.tastes(), [np.delete(np.arange(CONTEXTS), c) for c in range(CONTEXTS)]
        wrong = [np.mean([in_order(given[[o]], tastes[[c]], x)[:, 0] for o in others[c]], 0) for c in range(CONTEXTS)]
        return self.inference * in_order(given, tastes, x) + (1 - self.inference) * np.stack(wrong, 1)


CIRCLE = np.array([[1.0, -1, 0, 0], [0, 1, -1, 0], [-1, 0, 1, 0]])
"""style 1 less style 2, 2 less 3, 3 less 1"""


def fit(x: Floats, label: Floats, deviation: float = 3.0) -> Floats:
    """The weights of a Bradley-Terry model of differences x [n, d] and labels of 1 or -1, with a normal prior."""
    ridge = 1 / (2 * deviation**2 * len(x))

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = label * (x @ weights)
        slope = -(label * expit(-margin)) @ x / len(x) + 2 * ridge * weights
        return float(np.logaddexp(0, -margin).mean() + ridge * weights @ weights), slope

    return np.asarray(minimize(loss, np.zeros(x.shape[1]), jac=True).x)


def in_contexts(x: Floats, context: NDArray[np.int64], label: Floats) -> Floats:
    """v + v_c of each context, [contexts, d], fitted together."""
    own = (context[:, None, None] == np.arange(CONTEXTS)[:, None]) * x[:, None]
    weights = fit(np.concatenate([x, own.reshape(len(x), -1)], axis=1), label)
    common, each = np.split(weights, [x.shape[1]])
    return np.asarray(common + each.reshape(CONTEXTS, -1))


def in_order(model: Floats, tastes: Floats, x: Floats) -> Floats:
    """1 where a model prefers what is preferred in its context, else 0, [n, contexts]."""
    return agrees(x @ model.T, x @ tastes.T)


def population(weights: Floats, x: Floats) -> Floats:
    """The mean probability over the contexts, [n]."""
    return np.asarray(expit(x @ weights.T).mean(1))


def reversals(tastes: Floats, x: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The pairs whose preference turns round, and for each a context with either preference."""
    first = x @ tastes.T > 0
    turned = np.flatnonzero(first.any(1) & ~first.all(1))
    return turned, first[turned].argmax(1), (~first[turned]).argmax(1)
