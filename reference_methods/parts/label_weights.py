"""What labels that may be wrong are worth: weights, flips, soft labels and margins, from how well models fit them.

Pure functions of losses and margins of pairs; who fits the models says ``models/denoised_reward_model.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from farm.base.arrays import Floats


def history_weights(loss: Floats, suspicion: Floats, tail: float) -> Floats:
    """1, and for a pair whose suspicion is in the upper tail the density of its loss, exp(-z^2 / 2), [n].

    DBPM (arXiv 2302.03357); the suspicion of a pair is the mean of its losses so far.
    """
    mean, deviation = suspicion.mean(), suspicion.std()
    if deviation == 0:
        return np.ones(len(loss))
    density = np.exp(-np.square((loss - mean) / deviation) / 2)
    return np.where(suspicion > mean + tail * deviation, density, 1.0)


def personal_weights(loss: Floats, users: NDArray[np.object_], temperature: float) -> Floats:
    """softmax(-loss / T) within each user's pairs, times their number, so that a user's mean weight is 1, [n].

    The expectation of the draws of PLD (arXiv 2502.00348).
    """
    weights = np.empty(len(loss))
    for user in np.unique(users.astype(str)):
        own = users.astype(str) == user
        shifted = np.exp(-(loss[own] - loss[own].min()) / temperature)
        weights[own] = shifted * own.sum() / shifted.sum()
    return weights


def flipped(label: Floats, strength: Floats, share: float) -> Floats:
    """The labels p of the first, with those of the lowest ``share`` of the strengths turned round, [n].

    Args:
        strength: how far an ensemble puts the preferred response above the other, [n].
    """
    lowest = np.argsort(strength, kind="stable")[: round(share * len(strength))]
    out = label.copy()
    out[lowest] = 1 - out[lowest]
    return out


def softened(label: Floats, strength: Floats) -> Floats:
    """The label where the ensemble agrees; where it does not, the ensemble's own probability, sigma(strength), [n]."""
    agreed = np.where(label >= 0.5, expit(strength), 1 - expit(strength))
    return np.where(strength < 0, agreed, label)
