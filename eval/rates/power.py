"""How many annotations, before they are paid for; and what a given number can show.

A two-sided test of a win rate against one half, with a difference d, labels flipped with probability p, and a design
effect D (what clustering multiplies the variance by):

    n = D (z_{1-a/2} + z_{1-b})^2 o (1 - o) / ((1 - 2p) d)^2,    o = (1 - 2p)(1/2 + d) + p

Flips shrink the difference to (1 - 2p) d and leave the variance near 1/4. With ties, or for a paired difference of two
methods, give the variance of one row's score (or of one instruction's difference) instead of o (1 - o).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special

from farm.base.errors import OptionError, UserError
from farm.statistics.result import Result

LEAST = 1e-12
"""of a significance, of what a power lacks to certainty, and of a variance"""
MOST = 10**15
"""annotations"""
SMALLEST = 1e-9
"""difference that is looked for"""


@dataclass(frozen=True)
class Power(Result):
    """A plan: this many annotations find this difference with this power."""

    difference: float
    annotations: int
    power: float
    significance: float
    flip_rate: float
    design_effect: float
    variance: float
    """of one score as observed"""
    paired: bool
    observed_difference: float
    """what is left of the difference after the flips"""

    def table(self) -> pd.DataFrame:
        """As the command asks: differences in percent points."""
        row = {
            "difference_points": 100 * self.difference,
            "annotations": self.annotations,
            "power": self.power,
            "significance": self.significance,
            "flip_rate": self.flip_rate,
            "design_effect": self.design_effect,
            "observed_points": 100 * self.observed_difference,
        }
        return pd.DataFrame([row])

    def settings(self) -> dict[str, Any]:
        rows = "instruction's difference" if self.paired else "score"
        said: dict[str, Any] = {"paired": self.paired, f"variance of one {rows}": f"{self.variance:.4g}"}
        if abs(self.difference) < 0.002:
            said["caution"] = f"a difference of {100 * self.difference:g} percent points is very small; was that meant?"
        return said


def _check(
    flip_rate: float, design_effect: float, power: float, significance: float, variance: float | None, paired: bool
) -> None:
    for name, value in (("flip rate", flip_rate), ("design effect", design_effect), ("power", power)):
        if not isfinite(value):
            raise UserError(f"the {name} {value:g} is not a number")
    most = 1.0 if paired else 0.25
    if variance is not None and not LEAST <= variance <= most:
        raise UserError(
            f"a variance of {variance:g} cannot be: that of a score lies between {LEAST:g} and 0.25, "
            f"that of a paired difference between {LEAST:g} and 1"
        )
    if not 0 <= flip_rate < 0.5:
        raise UserError(f"a flip rate of {flip_rate:g} cannot be measured through; it is a share below 0.5, as 0.25")
    if design_effect > MOST:
        raise UserError(
            f"a design effect of {design_effect:g} is above {MOST:g}, more than the annotations there can be"
        )
    if design_effect < 1:
        raise UserError(f"a design effect of {design_effect:g} is below 1; clustering does not make rows worth more")
    if not (LEAST <= significance < 1 and significance / 2 < power <= 1 - LEAST):
        raise UserError(
            f"power {power:g} and significance {significance:g} are shares, 0.8 and 0.05 for example; neither may be "
            f"nearer to certainty than {LEAST:g}"
        )


def _variance(difference: float, flip_rate: float, given: float | None, paired: bool) -> float:
    if given is not None:
        # A flip turns s into 1 - s: the spread of the true score shrinks, and the noise comes on top.
        if paired:
            return given * (1 - 2 * flip_rate) ** 2 + 2 * flip_rate * (1 - flip_rate)
        mean = 0.5 + difference
        second = given + (mean - 0.5) ** 2  # E (s - 1/2)^2 does not change under s -> 1 - s
        return second - ((1 - 2 * flip_rate) * difference) ** 2
    if paired:
        # Two independent methods, each flipped on its own: the worst case for a pairing.
        one = (1 - 2 * flip_rate) * (0.5 + difference / 2) + flip_rate
        two = (1 - 2 * flip_rate) * (0.5 - difference / 2) + flip_rate
        return one * (1 - one) + two * (1 - two)
    o = (1 - 2 * flip_rate) * (0.5 + difference) + flip_rate
    return o * (1 - o)


def needed(
    difference: float,
    *,
    power: float = 0.8,
    significance: float = 0.05,
    flip_rate: float = 0.0,
    design_effect: float = 1.0,
    paired: bool = False,
    variance: float | None = None,
) -> Power:
    """Annotations (paired: instructions) needed to find ``difference`` (a fraction: 0.05 is five points).

    Args:
        paired: the difference of two methods against one baseline on the same instructions.
        variance: of one true score (paired: of one instruction's difference), before flips, where known.
    """
    _check(flip_rate, design_effect, power, significance, variance, paired)
    if not 0 < abs(difference) <= (1.0 if paired else 0.5):
        raise UserError(
            f"a difference of {100 * difference:g} percent points cannot be: one method's win rate differs from 50 by "
            "at most 50, and those of two methods (paired) by at most 100"
        )
    if difference < 0:
        raise UserError(
            f"a difference of {100 * difference:g} percent points: give its size; a loss needs as many as a win"
        )
    d = difference
    z = special.ndtri(1 - significance / 2) + special.ndtri(power)
    v = _variance(d, flip_rate, variance, paired)
    seen = (1 - 2 * flip_rate) * d
    n = design_effect * z**2 * v / seen**2 if seen**2 > 0 else float("inf")
    if not n <= MOST:
        raise UserError(f"a difference of {100 * difference:g} percent points takes more than {MOST:g} annotations")
    return Power(difference, max(ceil(n - 1e-9), 2), power, significance, flip_rate, design_effect, v, paired, seen)


def detectable(
    annotations: int,
    *,
    power: float = 0.8,
    significance: float = 0.05,
    flip_rate: float = 0.0,
    design_effect: float = 1.0,
    paired: bool = False,
    variance: float | None = None,
) -> Power:
    """The smallest difference that ``annotations`` find with this power. Raises UserError where none is found."""
    _check(flip_rate, design_effect, power, significance, variance, paired)
    if abs(annotations) > MOST:
        raise OptionError(f"`annotations`: give a number from 2 to {MOST:g}")
    if annotations < 2:
        raise UserError(f"{annotations} annotations cannot show a difference")
    z = special.ndtri(1 - significance / 2) + special.ndtri(power)
    largest = 1.0 if paired else 0.5

    def excess(d: float) -> float:
        v = _variance(d, flip_rate, variance, paired)
        return float(design_effect * z**2 * v / ((1 - 2 * flip_rate) * d) ** 2 - annotations)

    if not excess(largest) <= 0:
        raise UserError(
            f"{annotations} annotations at a flip rate of {flip_rate:g} find no difference with power {power:g}; "
            "collect more or use less noisy annotators"
        )
    if not np.isfinite(at_least := excess(SMALLEST)) or at_least < 0:
        raise UserError(
            f"{annotations} annotations with a variance of {variance or 0:g} find differences below "
            f"{100 * SMALLEST:g} percent points; check the variance"
        )
    d = float(optimize.brentq(excess, SMALLEST, largest))
    v = _variance(d, flip_rate, variance, paired)
    return Power(d, annotations, power, significance, flip_rate, design_effect, v, paired, (1 - 2 * flip_rate) * d)


def design_effect(per_cluster: float, intraclass_correlation: float) -> float:
    """1 + (m - 1) rho: what m rows a cluster with this correlation multiply the variance by (Kish 1965).

    Raises:
        UserError: for fewer than one row a cluster, or a correlation outside [0, 1].
    """
    if not per_cluster >= 1:
        raise UserError(f"{per_cluster:g} rows a cluster: a cluster has at least one")
    if not 0 <= intraclass_correlation <= 1:
        raise UserError(f"a correlation of {intraclass_correlation:g} within clusters is outside [0, 1]")
    return 1 + (per_cluster - 1) * intraclass_correlation
