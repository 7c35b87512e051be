"""What to label next: pairs chosen round by round with an ensemble fitted to the labels so far.

The ensemble is linear Bradley and Terry models P(1 ≻ 2) = σ(w · (φ(y1) - φ(y2))) of standardised features, each with
the labels weighed anew (Bayesian bootstrap, Rubin 1981) and a ridge; its members agree where labels have settled them.

    disagreement   the pairs on whose probability the members disagree most (standard deviation)
    thompson       double Thompson sampling: two members drawn for an instruction each name their best output, and the
                   two are compared (the second best where they name the same; arXiv 1604.07101)

The first round is drawn at random. A round takes at most one pair of an instruction as long as there are others, so
that a batch does not ask the same thing many times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import UserError
from farm.roles.protocols import Features
from farm.tables import turns
from farm.tables.records import PairIds

Strategy = Literal["disagreement", "thompson", "random"]
STRATEGIES: tuple[Strategy, ...] = ("disagreement", "thompson", "random")
MEMBERS = 16
_RIDGE = 1.0


def rounds_of(
    pairs: pd.DataFrame,
    ask: Callable[[pd.DataFrame], pd.DataFrame],
    features: Features,
    strategy: Strategy,
    *,
    labels: int,
    rounds: int = 10,
    seed: int = 0,
) -> Iterator[pd.DataFrame]:
    """Annotations of ``labels`` of the candidate ``pairs`` in so many rounds; column ``round`` counts from 1.

    Raises:
        UserError: when there are fewer candidates than labels.
    """
    if labels > len(pairs):
        raise UserError(f"{labels:,} labels of {len(pairs):,} candidate pairs: name fewer, or give more outputs")
    design = differences(pairs, features)
    instruction, _ = pd.factorize(turns.row_ids(pairs))
    ids = PairIds(pairs).pair
    open_ = np.ones(len(pairs), dtype=bool)
    taken: list[NDArray[np.int64]] = []
    answers: list[Floats] = []
    sizes = np.diff(np.linspace(0, labels, rounds + 1).astype(int))
    for number, size in enumerate(sizes, start=1):
        if not size:
            continue
        lottery = rng.uniform(seed, f"active round {number}", ids)
        if strategy == "random" or not taken:
            worth = lottery
        else:
            members = ensemble(design[np.concatenate(taken)], np.concatenate(answers), seed, number)
            if strategy == "disagreement":
                worth = expit(design @ members.T).std(axis=1) + 1e-9 * lottery
            else:
                worth = _duels(design, pairs, members, instruction, lottery)
        rows = _spread(worth, instruction, open_, int(size))
        open_[rows] = False
        table = ask(pairs.iloc[rows]).assign(round=number)
        said = 2.0 - table["preference"].to_numpy(dtype=np.float64)
        decided = ~np.isnan(said)
        taken.append(rows[decided])
        answers.append(said[decided])
        yield table


def differences(pairs: pd.DataFrame, features: Features) -> Floats:
    """Standardised differences of all numeric features of the two outputs, [pairs, features]."""
    asked = turns.prompts_of(pairs)
    one, two = (features(asked, pairs[c].tolist()).to_numpy(dtype=np.float64) for c in ("output_1", "output_2"))
    scale = np.concatenate([one, two]).std(axis=0)
    return np.asarray((one - two)[:, scale > 1e-12] / scale[scale > 1e-12])


def fit(design: Floats, label: Floats, weight: Floats, steps: int = 12) -> Floats:
    """Ridge logistic regression without an intercept by Newton's method, [features]; labels are shares in [0, 1]."""
    w = np.zeros(design.shape[1])
    for _ in range(steps):
        p = expit(design @ w)
        gradient = design.T @ (weight * (label - p)) - _RIDGE * w
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + _RIDGE * np.eye(len(w))
        step = np.linalg.solve(curvature, gradient)
        w = w + step
        if np.abs(step).max() < 1e-6:
            break
    return w


def ensemble(design: Floats, label: Floats, seed: int, number: int) -> Floats:
    """The members' weights, [MEMBERS, features]."""
    rows = np.arange(len(label), dtype=np.uint64)
    weights = [-np.log(rng.uniform(seed, f"ensemble {number}", rows, k)) for k in range(MEMBERS)]
    return np.stack([fit(design, label, weight) for weight in weights])


def _duels(design: Floats, pairs: pd.DataFrame, members: Floats, instruction: NDArray[np.int64], lottery: Floats
           ) -> Floats:  # fmt: skip
    """2 where a pair is the duel of its instruction's two champions, less elsewhere; ties broken by the lottery."""
    wins = expit(design @ members.T)  # [pairs, members]: chance of the first output
    first, second = pairs["output_1"].to_numpy(object), pairs["output_2"].to_numpy(object)
    worth = 1e-3 * lottery
    order = np.argsort(instruction, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(instruction[order])) + 1):
        texts, codes = np.unique(np.concatenate([first[rows], second[rows]]), return_inverse=True)
        a, b = codes[: len(rows)], codes[len(rows) :]
        draw = int(lottery[rows[0]] * 2**32)
        one, two = draw % len(members), (draw // len(members)) % len(members)
        score = [
            np.bincount(a, wins[rows, k], len(texts)) + np.bincount(b, 1 - wins[rows, k], len(texts))
            for k in (one, two)
        ]
        champion = int(np.argmax(score[0]))
        rival = int(np.argmax(np.where(np.arange(len(texts)) == champion, -np.inf, score[1])))
        duel = ((a == champion) & (b == rival)) | ((a == rival) & (b == champion))
        worth[rows[duel]] += 1 + lottery[rows[0]]
    return worth


def _spread(worth: Floats, instruction: NDArray[np.int64], open_: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """The rows of most worth that are open, at most one of an instruction before all have one, then two and so on."""
    rows = np.flatnonzero(open_)
    order = rows[np.argsort(-worth[rows], kind="stable")]
    turn = pd.Series(instruction[order]).groupby(instruction[order]).cumcount().to_numpy()
    return np.sort(order[np.lexsort((np.arange(len(order)), turn))][:size])
