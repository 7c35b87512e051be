"""Style of answers beside strengths: Bradley-Terry with the differences of length and Markdown as covariates.

    logit P(i beats j) = theta_i - theta_j + x' beta,     x_k = (a_k - b_k) / (a_k + b_k)

where a_k and b_k say how much of the style k the two answers have (characters; headers, list items and bold texts in
Markdown), and x_k is 0 where neither has any; each x_k is divided by its root mean square over the battles. theta is
then what is left of a model at equal style, and beta_k what a usual difference of the style is worth, in log-odds
(Chatbot Arena's style control, which divides by the standard deviation about the mean). A tie is half a win, or left
out. Errors are the sandwich over rows or clusters.

Exchanging the sides of a battle changes nothing: the mean of x would depend on them, its root mean square does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.special import expit

from farm.base.arrays import Floats, Ints
from farm.base.errors import OptionError, nearest
from farm.statistics.uncertainty import codes, critical
from farm.tables.table_files import is_missing

Style = Literal["length", "headers", "lists", "bold"]
_MARKS = {
    "headers": re.compile(r"^#{1,6}\s", re.MULTILINE),
    "lists": re.compile(r"^\s*(?:[-*+]|\d+[.)])\s", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
}
STYLES: tuple[Style, ...] = ("length", "headers", "lists", "bold")
SINGULAR = 1e13
"""condition of a Hessian whose solution is rounding"""
_TEXTS = (("output_1", "output_2"), ("response_a", "response_b"), ("completion_a", "completion_b"))
_LENGTHS = (("output_1_len", "output_2_len"), ("len_1", "len_2"), ("len_a", "len_b"))


def rated(
    first: Ints,
    second: Ints,
    score: Floats,
    table: pd.DataFrame,
    styles: Sequence[str],
    models: int,
    prior: float,
    clusters: list[tuple[Ints, int]],
    confidence: float,
) -> tuple[Floats, Floats, int, pd.DataFrame]:
    """theta [M] at equal style, its covariance [M, M], of how many units that is, and what each style is worth.

    Args:
        first, second, score: of the battles, [n].
        table: their rows, in which the styles are counted.
        clusters: the labels [n] and their number, of none to two ways.

    Raises:
        OptionError: as :func:`differences`, and where styles and ratings cannot be told apart.
    """
    x = differences(table, styles)
    try:
        theta, beta, inverse, p = fit(first, second, score, x, models, prior)
    except FloatingPointError as error:
        raise OptionError(
            "`style`: the styles cannot be told apart from who wrote or who won, so there are no finite ratings; "
            "name fewer"
        ) from error
    whole, units = sandwich(inverse, first, second, score - p, x, clusters)
    worth_of_styles = worth(styles, beta, whole[models:, models:], units, confidence)
    return theta, whole[:models, :models], units, worth_of_styles


def count(text: str, style: str) -> int:
    """How much of a style a text has: characters, or marks of Markdown.

    >>> [count("# A\\n- **b**\\n- c", style) for style in STYLES]
    [15, 1, 2, 1]
    """
    return len(text) if style == "length" else len(_MARKS[style].findall(text))


def differences(table: pd.DataFrame, styles: Sequence[str]) -> Floats:
    """x [n, K] of battles, first minus second, in units of its root mean square.

    Raises:
        OptionError: an unknown style, a table without what it is counted in, or a style in which no two answers differ.
    """
    for style in styles:
        if style not in STYLES:
            raise OptionError(f"`style` {style}: unknown; {nearest(style, STYLES)}")
        if list(styles).count(style) > 1:
            raise OptionError(f"`style` names {style} more than once; name each style once")
    texts = next((pair for pair in _TEXTS if set(pair) <= set(table.columns)), None)
    lengths = next((pair for pair in _LENGTHS if set(pair) <= set(table.columns)), None)
    columns = []
    for style in styles:
        if texts is not None:
            a, b = (
                np.array([np.nan if is_missing(text) else count(str(text), style) for text in table[side]], np.float64)
                for side in texts
            )
        elif lengths is not None and style == "length":
            a, b = (pd.to_numeric(table[side], errors="coerce").to_numpy(np.float64) for side in lengths)
        else:
            also = " nor their lengths (output_1_len, output_2_len)" if style == "length" else ""
            raise OptionError(f"`style` {style}: the battles have no texts of both answers (output_1, output_2){also}")
        if np.isnan(a + b).any():
            row = int(np.isnan(a + b).argmax()) + 1
            raise OptionError(f"`style` {style}: row {row}: a text or its length is missing")
        both = a + b
        columns.append(np.divide(a - b, both, out=np.zeros(len(both)), where=both > 0))
    x = np.stack(columns, axis=1)
    scale = np.sqrt((x**2).mean(axis=0))
    if not scale.all():
        raise OptionError(f"`style` {styles[int(scale.argmin())]}: no two answers differ in it; leave it out")
    return x / scale


def fit(
    first: Ints, second: Ints, score: Floats, x: Floats, models: int, prior: float = 0.0
) -> tuple[Floats, Floats, Floats, Floats]:
    """theta [M] with mean zero, beta [K] a unit of x, the inverse Hessian [M+K, M+K] and P(first wins) [n], by Newton.

    ``prior`` is the number of virtual games (half won) of each model against strength 0.

    Raises:
        FloatingPointError: there is no finite maximum, or not one alone.
    """
    m, k = models, x.shape[1]
    w = np.zeros(m + k)
    for _ in range(200):
        p = expit(w[first] - w[second] + x @ w[m:])
        residual, v = score - p, p * (1 - p)
        q = expit(w[:m])
        gradient = np.empty(m + k)
        gradient[:m] = np.bincount(first, residual, m) - np.bincount(second, residual, m) + prior * (0.5 - q)
        gradient[m:] = residual @ x
        pair = np.bincount(first * m + second, v, m * m).reshape(m, m)
        pair = pair + pair.T
        hessian = np.zeros((m + k, m + k))
        hessian[:m, :m] = np.diag(pair.sum(1) + prior * q * (1 - q)) - pair + (0.0 if prior else 1.0 / m)
        for column in range(k):
            weighted = v * x[:, column]
            hessian[:m, m + column] = np.bincount(first, weighted, m) - np.bincount(second, weighted, m)
        hessian[m:, :m] = hessian[:m, m:].T
        hessian[m:, m:] = (x * v[:, None]).T @ x
        if not np.linalg.cond(hessian) < SINGULAR:
            raise FloatingPointError("the styles and the models cannot be told apart")
        step = np.linalg.solve(hessian, gradient)
        largest = float(np.abs(step).max())
        w = w + step * min(1.0, 1.5 / largest) if largest > 0 else w
        if not np.isfinite(w).all() or np.abs(w).max() > 50:
            raise FloatingPointError("the ratings diverge")
        if largest < 1e-10:
            break
    else:
        raise FloatingPointError("Newton did not converge")
    return w[:m] - w[:m].mean(), w[m:], np.asarray(np.linalg.inv(hessian)), p


def sandwich(
    inverse: Floats, first: Ints, second: Ints, residual: Floats, x: Floats, clusters: list[tuple[Ints, int]]
) -> tuple[Floats, int]:
    """The covariance [M+K, M+K] of (theta, beta), theta in the gauge of mean zero, and how many units it is of."""
    m = len(inverse) - x.shape[1]

    def meat(code: Ints, number: int) -> Floats:
        rows = np.arange(x.shape[1])
        at = (np.concatenate([code, code, np.repeat(code, x.shape[1])]),
              np.concatenate([first, second, m + np.tile(rows, len(code))]))  # fmt: skip
        g = csr_array((np.concatenate([residual, -residual, (residual[:, None] * x).ravel()]), at),
                      shape=(number, len(inverse)))  # fmt: skip
        return np.asarray((g.T @ g).toarray()) * number / max(number - 1, 1)

    if len(clusters) == 2:
        (a, ca), (b, cb) = clusters
        whole = meat(a, ca) + meat(b, cb) - meat(*codes(a * cb + b))
        values, vectors = np.linalg.eigh(whole)
        whole, units = (vectors * np.maximum(values, 0)) @ vectors.T, min(ca, cb)
    else:
        code, units = clusters[0] if clusters else (np.arange(len(residual)), len(residual))
        whole = meat(code, units)
    centre = np.eye(len(inverse))
    centre[:m, :m] -= 1.0 / m
    return np.asarray(centre @ inverse @ whole @ inverse @ centre), units


def worth(styles: Sequence[str], beta: Floats, covariance: Floats, units: int, confidence: float) -> pd.DataFrame:
    """What a usual difference of each style is worth: style, log_odds, low, high."""
    error = np.sqrt(np.maximum(np.diag(covariance), 0))
    half = critical(confidence, max(units - 1, 1)) * error
    return pd.DataFrame({"style": list(styles), "log_odds": beta, "low": beta - half, "high": beta + half})
