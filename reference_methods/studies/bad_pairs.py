"""Does the history of a pair's loss find wrong labels, and does it help to weigh them down?

    labels    y = sign of w . x + logistic noise, |w| = 2.5; a share is flipped
    plain     full-batch gradient descent on the logistic loss
    history   m_i = mean of the pair's losses so far;  where m_i > mean(m) + 2 sd(m), after a tenth of the epochs, the
              pair's weight is the normal density of its current loss, in units of its peak; else 1
    last      the same with the current loss in the place of m_i

A model of few features has no room for what is wrong; one of many memorises it, unless it is told what to leave out.

Paper: DBPM (Lan et al., arXiv 2302.03357): pairs whose losses were too low are noisy and those whose were too high are
faulty; both are weighed down. Ours: only high losses are, for those of preference data are skewed and their lower tail
is empty. Pairs of responses in place of views of a time series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import expit

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, ErrorRate, NotNegative, Positive
from reference_methods.parts.label_weights import history_weights
from reference_methods.studies.parts import agrees, auroc, drawn_labels, drawn_taste, losses


@dataclass(frozen=True)
class BadPairs(Bounded):
    """Tables ``accuracy`` (``right``: share of fresh pairs without noise) and ``detection`` (``auroc`` of flips)."""

    dimensions: Count = 300
    flips: ErrorRate = 0.2
    pairs: Count = 400
    epochs: Count = 100
    step: Positive = 1.0
    """of gradient descent on the mean loss"""
    tail: NotNegative = 2.0
    """standard deviations beyond which a pair is suspect"""
    held_out: Count = 4000

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "bad pairs")
        w = drawn_taste(2.5, self.dimensions, draws)
        x, fresh = (draws.normal(size=(n, self.dimensions)) for n in (self.pairs, self.held_out))
        signs, flipped = drawn_labels(x @ w, self.flips, draws)
        accuracy, detection = [], []
        for method in ("plain", "history", "last"):
            v, suspicion = self.descend(x, signs, method)
            accuracy.append({"method": method, "right": float(agrees(fresh @ v, fresh @ w).mean())})
            if self.flips and method != "plain":
                detection.append({"method": method, "auroc": auroc(suspicion, flipped)})
        return {"accuracy": pd.DataFrame(accuracy), "detection": pd.DataFrame(detection, columns=["method", "auroc"])}

    def descend(self, x: Floats, signs: Floats, method: Literal["plain", "history", "last"]) -> tuple[Floats, Floats]:
        """The fitted v, [d], and what each pair is suspected by at the end, [n]."""
        v, summed = np.zeros(x.shape[1]), np.zeros(len(signs))
        suspicion = summed
        for epoch in range(self.epochs):
            loss = losses(signs, x @ v)
            summed = summed + loss
            suspicion = loss if method == "last" else summed / (epoch + 1)
            weights = np.ones(len(signs))
            if method != "plain" and epoch >= self.epochs // 10:
                weights = history_weights(loss, suspicion, self.tail)
            slope = -(weights * signs * expit(-signs * (x @ v))) @ x / len(signs)
            v = v - self.step * slope
        return v, suspicion
