"""From several votes on each pair to the likely truth, and to how good each annotator is. Pure functions on arrays.

    majority         the label with most votes
    Dawid and Skene  each annotator a has a confusion matrix π^a, π^a_jk = P(says k | truth is j):
                     E: T_i(j) ∝ p_j Π π^a_jk over the votes on i;  M: normalised expected counts       (1979)
    GLAD             P(vote is right) = σ(α_a β_i): ability α_a, below 0 for an adversary, and
                     easiness β_i > 0 of the item                              (Whitehill and others, NeurIPS 2009)

GLAD is fitted by maximising its penalised marginal likelihood directly (L-BFGS): with c the posterior probability that
a vote is right, the gradient in α β is c - σ(α β), the same as in the paper's EM. Priors: α ~ N(1, 1), ln β ~ N(0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit, logsumexp, softmax

from farm.base.arrays import Floats, Ints
from farm.statistics.uncertainty import codes
from farm.tables.records import PairIds, swapped


@dataclass(frozen=True)
class Votes:
    """n votes: who said what of which item. Labels are 0 .. ``labels`` - 1."""

    item: Ints
    annotator: Ints
    label: Ints
    items: int
    annotators: int
    labels: int = 2

    @classmethod
    def of(cls, item: ArrayLike, annotator: ArrayLike, label: ArrayLike) -> Votes:
        """Votes from the names of items and annotators, and labels 0 .. K-1, each [n]."""
        row, items = codes(np.asarray(item))
        who, annotators = codes(np.asarray(annotator))
        y = np.asarray(label, dtype=np.int64)
        return cls(row, who, y, items, annotators, int(y.max(initial=1)) + 1)

    def counts(self) -> Floats:
        """Votes for each label of each item, [items, labels]."""
        flat = np.bincount(self.item * self.labels + self.label, minlength=self.items * self.labels)
        return flat.reshape(self.items, self.labels).astype(np.float64)


def votes(annotations: pd.DataFrame) -> tuple[Votes, pd.DataFrame, list[str]]:
    """The decided votes of an annotation table: 0 where the first output of the item is preferred, 1 the second.

    Returns:
        the votes, the items (one row a pair, by its first row in the table), and the annotators' names. An item has its
        outputs in canonical order, so that the order in which rows have them changes nothing. Ties, rows without a
        verdict and pairs of one text are left out.
    """
    kept = annotations["preference"].notna() & (annotations["preference"] != 1.5)
    decided = annotations[kept & (annotations["output_1"] != annotations["output_2"])]
    ids = PairIds(decided)
    item, _ = pd.factorize(ids.pair)
    annotator, names = pd.factorize(decided["annotator"])
    first_rows = np.unique(item, return_index=True)[1]
    label = (decided["preference"].to_numpy() > 1.5) ^ ids.swapped
    columns = [c for c in ("instruction", "output_1", "output_2", "generator_1", "generator_2") if c in decided]
    items = swapped(decided[columns], ids.swapped).iloc[first_rows].reset_index(drop=True)
    found = Votes(item, annotator.astype(np.int64), label.astype(np.int64), len(items), len(names))
    return found, items, [str(name) for name in names]


def majority(given: Votes) -> Floats:
    """P(label) by the share of the winners: 1 for the label with most votes, shared among equals, [items, labels]."""
    counts = given.counts()
    best = (counts == counts.max(axis=1, keepdims=True)).astype(np.float64)
    return best / best.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class DawidSkene:
    """Posterior of the truth [items, labels], confusion matrices [annotators, truth, says], and prior [labels]."""

    posterior: Floats
    confusion: Floats
    prior: Floats
    log_likelihood: float
    iterations: int

    @property
    def accuracy(self) -> Floats:
        """P(annotator is right), [annotators]."""
        return np.einsum("ajj,j->a", self.confusion, self.prior)


def dawid_skene(given: Votes, *, smoothing: float = 0.01, tolerance: float = 1e-6, limit: int = 500) -> DawidSkene:
    """Maximum likelihood by EM from the shares of the votes; ``smoothing`` is added to each cell of expected counts."""
    k = given.labels
    counts = given.counts()
    # Both steps are products with the sparse matrix of who said what of which item.
    cell = given.annotator * k + given.label
    said = csr_array((np.ones(len(cell)), (given.item, cell)), shape=(given.items, given.annotators * k))
    confusion = prior = np.empty(0)
    posterior: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    before, now, steps = -np.inf, -np.inf, 0
    while steps < limit:
        steps += 1
        prior = np.asarray(posterior.mean(axis=0), dtype=np.float64)
        tally = (said.T @ posterior).reshape(given.annotators, k, k).transpose(0, 2, 1)
        confusion = tally + max(smoothing, 1e-12)  # a cell of 0 would never fill again
        confusion = confusion / confusion.sum(axis=2, keepdims=True)
        log_confusion = np.log(confusion).transpose(0, 2, 1).reshape(given.annotators * k, k)
        joint = np.log(np.maximum(prior, 1e-300)) + said @ log_confusion
        evidence = logsumexp(joint, axis=1)
        posterior = np.exp(joint - evidence[:, None])
        now = float(evidence.sum())
        if abs(now - before) <= tolerance * (1 + abs(now)):
            break
        before = now
    return DawidSkene(posterior, confusion, prior, now, steps)


@dataclass(frozen=True)
class Glad:
    """Posterior of the truth [items, labels], ability of each annotator [annotators], easiness of each item [items]."""

    posterior: Floats
    ability: Floats
    easiness: Floats
    log_likelihood: float
    converged: bool


def glad(given: Votes, *, limit: int = 500) -> Glad:
    """GLAD with a uniform prior on the truth; a wrong vote is any other label alike."""
    a, k = given.annotators, given.labels
    rows = np.arange(len(given.item))

    def posterior_of(logit: Floats) -> tuple[Floats, float]:
        right, wrong = -np.logaddexp(0, -logit), -np.logaddexp(0, logit) - np.log(k - 1)
        base = np.bincount(given.item, wrong, given.items)
        gain = np.bincount(given.item * k + given.label, right - wrong, given.items * k).reshape(-1, k)
        joint = base[:, None] + gain - np.log(k)
        return np.asarray(softmax(joint, axis=1)), float(logsumexp(joint, axis=1).sum())

    def loss(theta: Floats) -> tuple[float, Floats]:
        ability, log_easiness = theta[:a], theta[a:]
        easiness = np.exp(log_easiness)
        logit = ability[given.annotator] * easiness[given.item]
        posterior, likelihood = posterior_of(logit)
        slope = posterior[given.item[rows], given.label] - expit(logit)
        by_annotator = np.bincount(given.annotator, slope * easiness[given.item], a) - (ability - 1)
        by_item = np.bincount(given.item, slope * logit, given.items) - log_easiness
        penalised = likelihood - 0.5 * np.square(ability - 1).sum() - 0.5 * np.square(log_easiness).sum()
        return -penalised, -np.concatenate([by_annotator, by_item])

    start = np.concatenate([np.ones(a), np.zeros(given.items)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": limit})
    ability, easiness = found.x[:a], np.exp(found.x[a:])
    posterior, likelihood = posterior_of(ability[given.annotator] * easiness[given.item])
    return Glad(posterior, ability, easiness, likelihood, bool(found.success))
