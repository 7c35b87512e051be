"""A crowd from a published row: AlpacaEval's evaluators leaderboard gives people in five numbers.

The row says how often one label agrees with the majority of the three others, and how often the longer output, the one
with a list, and the one shown first is preferred. The crowd has as many parameters (the spread of the margins and three
biases), which are solved for on the pairs that were judged, where they are given; without them every longer output is
taken to be much longer, and every list to stand against none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.special import expit

from annotators.calibration.ballots import Ballots, ballots
from annotators.people.crowd import Group
from farm.base.arrays import Floats
from farm.base.errors import OptionError, UserError, nearest
from farm.tables.formats import read_pairs, read_table
from farm.tables.table_files import header
from farm.votes.table import from_table

_COLUMNS = {
    "Human agreement": "agreement", "Proba. prefer longer": "longer", "Proba. prefer lists": "lists",
    "Proba. prefer 1": "first",
}  # fmt: skip
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_VOTES = 4
"""labels on each pair in AlpacaEval's cross-annotations"""


@dataclass(frozen=True)
class Row:
    """One row, fractions."""

    name: str
    agreement: float
    longer: float
    lists: float
    first: float


def is_published(path: Path) -> bool:
    """Whether a file is an evaluators leaderboard."""
    return path.suffix == ".csv" and {"Human agreement", "Variance"} <= set(header(path))


def read_row(path: Path, name: str = "humans") -> Row:
    """The row of an evaluator. Raises UserError naming the nearest where there is none."""
    table = read_table(path)
    names = table.iloc[:, 0].astype(str)
    if name not in set(names):
        raise UserError(f"{path}: there is no row `{name}`; {nearest(name, names)}")
    row = table[(names == name).to_numpy()].iloc[0]
    said = {ours: float(pd.to_numeric(row.get(theirs), errors="coerce")) for theirs, ours in _COLUMNS.items()}
    missing = [theirs for theirs, ours in _COLUMNS.items() if not np.isfinite(said[ours])]
    if missing:
        raise UserError(f"{path}: the row `{name}` has no `{missing[0]}`")
    return Row(name, said["agreement"] / 100, said["longer"], said["lists"], said["first"])


def blank_ballots(pairs: Path) -> Ballots:
    """The pairs as ballots of four people who said nothing yet, the first output of the file shown first."""
    table = read_pairs(pairs)
    each = pd.concat([table.assign(preference=1.0, annotator=f"person {k + 1}") for k in range(_VOTES)])
    return ballots(from_table(each.reset_index(drop=True), str(pairs)), str(pairs))


def solve(row: Row, given: Ballots | None) -> Group:
    """The one group whose expected statistics are the row's."""
    length, lists, longer, listed, position = _design(given)
    if not (longer.any() and listed.any() and np.isfinite(np.r_[length, lists, position]).all()):
        raise OptionError("`pairs`: no output is clearly longer, or none alone has a list: the biases cannot be fitted")

    def expected(x: Floats) -> Floats:
        spread = np.exp(x[0])
        logit = spread * (_NODES[None, :] + (x[1] * length + x[2] * lists + x[3] * position)[:, None])
        p = expit(logit)
        agreement = _one_against_the_rest(p) @ _WEIGHTS
        first = np.where(position[:, None] < 0, 1 - p, p) @ _WEIGHTS
        preferred = p @ _WEIGHTS
        return np.array([
            agreement.mean(), first.mean(),
            np.where(longer > 0, preferred, 1 - preferred)[longer != 0].mean(),
            np.where(listed > 0, preferred, 1 - preferred)[listed != 0].mean(),
        ])  # fmt: skip

    target = np.array([row.agreement, row.first, row.longer, row.lists])
    found = least_squares(lambda x: expected(x) - target, np.array([0.3, 0.1, 0.0, 0.0]))
    spread = float(np.exp(found.x[0]))
    length_bias, list_bias, position_bias = (round(float(spread * v), 4) for v in found.x[1:])
    return Group(spread=round(spread, 4), length_bias=length_bias, list_bias=list_bias, position_bias=position_bias)


def _one_against_the_rest(p: Floats) -> Floats:
    """P(a label agrees with the majority of three others), all of chance p."""
    majority = p**3 + 3 * p**2 * (1 - p)
    return np.asarray(p * majority + (1 - p) * (1 - majority))


def _design(given: Ballots | None) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Of each pair: the terms length and list, which is longer (AlpacaEval: by over 30 characters), which alone has a
    list (AlpacaEval's notion), and whether the canonical first is shown first."""
    if given is None:
        grid = np.array([[a, b, c] for a in (1.0, -1.0) for b in (1.0, -1.0) for c in (1.0, -1.0)])
        return grid[:, 0], grid[:, 1], grid[:, 0], grid[:, 1], grid[:, 2]
    lead = np.unique(given.item, return_index=True)[1]
    table, terms = given.table.iloc[lead], given.terms[lead]
    difference = table["length_1"].to_numpy(np.float64) - table["length_2"].to_numpy(np.float64)
    longer = np.where(np.abs(difference) > 30, np.sign(difference), 0.0)
    listed = table["list_1"].to_numpy(np.float64) - table["list_2"].to_numpy(np.float64)
    return terms[:, 0], terms[:, 1], longer, listed, terms[:, 3]
