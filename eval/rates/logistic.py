"""Weighted logistic regression with soft labels and no intercept: Newton, and the L1 path with grouped folds.

With rows x_i, labels y_i in [0, 1] and weights s_i the loss is sum_i s_i [log(1 + e^{z_i}) - y_i z_i] with z_i = x_i'w;
a soft label is the same as two rows with weights s_i y_i and s_i (1 - y_i).

* :func:`newton` minimises the loss (plus a small ridge if asked); a step after which the decrement has grown is halved.
* :func:`lasso` minimises ||w||_1 + C * loss, liblinear's L1 objective, by proximal Newton: each step solves the
  quadratic model by coordinate descent and halves until the objective falls.
* :func:`cross_validated_lasso` chooses C as AlpacaEval's published fit does: a grid of ten from 1e-4 to 1e4, five folds
  by row, the mean weighted log loss of the held-out rows, then a fit on all rows.

These problems have three columns; nothing here is meant for thousands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from farm.base.arrays import Floats

PUBLISHED_GRID = np.logspace(-4, 4, 10)


@dataclass(frozen=True)
class Fit:
    """Coefficients [K] with the curvature there, H = X' S P (1 - P) X (+ ridge), [K, K]."""

    coefficients: Floats
    hessian: Floats
    iterations: int
    converged: bool


def _loss(z: Floats, y: Floats, s: Floats) -> float:
    return float(s @ (np.logaddexp(0, z) - y * z))


def newton(
    columns: Floats,
    y: Floats,
    weights: Floats | None = None,
    *,
    ridge: float = 0.0,
    start: Floats | None = None,
    tolerance: float = 1e-10,
    iterations: int = 100,
) -> Fit:
    """Minimise the loss plus ridge/2 ||w||^2.

    Args:
        columns: [K, n], one row a feature (so that a feature is contiguous).
        y: [n] in [0, 1].
        weights: [n], ones by default.
        tolerance: on the Newton decrement g'H^-1 g / 2, the distance of the loss from its minimum.
    """
    k, n = columns.shape
    s = np.ones(n) if weights is None else weights
    w = np.zeros(k) if start is None else start.astype(np.float64).copy()
    penalty = ridge * np.eye(k)
    target = columns @ (s * y)
    hessian, step, before, size = penalty, np.zeros(k), np.inf, 1.0
    p, sp = np.empty(n), np.empty(n)
    with np.errstate(over="ignore"):  # e^710 is infinite, and 1 / infinity is the right limit
        for count in range(1, iterations + 1):
            np.exp(-(w @ columns), out=p)
            p += 1
            np.reciprocal(p, out=p)
            np.multiply(s, p, out=sp)
            gradient = columns @ sp - target + ridge * w
            np.subtract(sp, np.multiply(sp, p, out=p), out=sp)
            hessian = (columns * sp) @ columns.T + penalty
            new = _solve(hessian, gradient)
            decrement = float(gradient @ new) / 2
            # Far out the curvature vanishes, and a decrement says nothing.
            if not np.isfinite(decrement) or (decrement <= tolerance and np.abs(gradient).max() > 1e-4 * n):
                break
            if decrement > before and size > 1e-8:  # too far: back to half of the step from where it started
                size /= 2
                w = w + size * step
                continue
            if decrement <= tolerance:
                # The convergence is quadratic: after this step the distance is within rounding.
                return Fit(w - new, hessian, count, True)
            step, before, size = new, decrement, 1.0
            w = w - step
    if start is not None:  # from zero the way is always down
        return newton(columns, y, weights, ridge=ridge, tolerance=tolerance, iterations=iterations)
    return Fit(w, hessian, iterations, False)


def _solve(matrix: Floats, right: Floats) -> Floats:
    try:
        return np.asarray(np.linalg.solve(matrix, right))
    except np.linalg.LinAlgError:  # a feature that is constant zero: the smallest step that solves it
        return np.asarray(np.linalg.lstsq(matrix, right)[0])


def lasso(
    columns: Floats,
    y: Floats,
    strength: float,
    weights: Floats | None = None,
    *,
    start: Floats | None = None,
    tolerance: float = 1e-10,
    iterations: int = 200,
) -> Floats:
    """The minimiser [K] of ||w||_1 + strength * loss; arguments as in :func:`newton`."""
    k, n = columns.shape
    s = strength * (np.ones(n) if weights is None else weights)
    w = np.zeros(k) if start is None else start.astype(np.float64).copy()
    z = w @ columns
    target = columns @ (s * y)
    objective = _loss(z, y, s) + float(np.abs(w).sum())
    for _ in range(iterations):
        p = expit(z)
        sp = s * p
        gradient = columns @ sp - target
        hessian = (columns * (sp - sp * p)) @ columns.T
        step = _quadratic_l1(w, gradient, hessian)
        decrease = float(gradient @ step + np.abs(w + step).sum() - np.abs(w).sum())
        if -decrease <= tolerance * max(1.0, abs(objective)) * 1e-2:
            return w + step
        size = 1.0
        while size > 1e-10:
            new = w + size * step
            z_new = new @ columns
            after = _loss(z_new, y, s) + float(np.abs(new).sum())
            if after <= objective + 0.01 * size * decrease:
                break
            size /= 2
        else:
            return w
        w, z, objective = new, z_new, after
    return w


def _quadratic_l1(w: Floats, gradient: Floats, hessian: Floats) -> Floats:
    """The step d that minimises g'd + d'Hd/2 + ||w + d||_1, by coordinate descent."""
    at, g = [float(v) for v in w], [float(v) for v in gradient]
    h = [[float(v) for v in row] for row in hessian]
    k = len(at)
    d = [0.0] * k
    for _ in range(1000):
        largest = 0.0
        for j in range(k):
            curvature = h[j][j]
            if curvature <= 0:
                continue
            slope = g[j] + sum(h[j][i] * d[i] for i in range(k))
            here = at[j] + d[j]
            wanted = here - slope / curvature
            bound = 1 / curvature
            new = wanted - bound if wanted > bound else wanted + bound if wanted < -bound else 0.0
            change = new - here
            d[j] += change
            largest = max(largest, abs(change))
        if largest < 1e-13:
            break
    return np.array(d)


@dataclass(frozen=True)
class LassoFit:
    """The fit at the chosen strength, and the mean held-out log loss of each strength of the grid."""

    coefficients: Floats
    strength: float
    losses: Floats


def folds_by_row(n: int, folds: int = 5) -> NDArray[np.int64]:
    """scikit-learn's GroupKFold with every row a group of its own: dealt out in turn from the last row backwards."""
    return ((n - 1 - np.arange(n)) % folds).astype(np.int64)


def cross_validated_lasso(
    columns: Floats, y: Floats, weights: Floats | None = None, *, grid: Floats = PUBLISHED_GRID, folds: int = 5
) -> LassoFit:
    """The published recipe: ``grid`` of strengths, ``folds`` by row, mean weighted log loss, refit on all rows."""
    n = columns.shape[1]
    s = np.ones(n) if weights is None else weights
    fold = folds_by_row(n, folds)
    losses = np.zeros(len(grid))
    for f in range(folds):
        inside, outside = fold != f, fold == f
        inner, outer = np.ascontiguousarray(columns[:, inside]), columns[:, outside]
        w = np.zeros(len(columns))
        for g, strength in enumerate(grid):
            w = lasso(inner, y[inside], float(strength), s[inside], start=w)
            p = np.clip(expit(w @ outer), 1e-15, 1 - 1e-15)
            cross_entropy = y[outside] * np.log(p) + (1 - y[outside]) * np.log1p(-p)
            losses[g] -= float(np.mean(s[outside] * cross_entropy)) / folds
    best = float(grid[int(np.argmin(losses))])
    return LassoFit(lasso(columns, y, best, s), best, losses)
