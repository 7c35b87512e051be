"""Which pairs to ask about, when there are several outputs to an instruction.

    random        pairs drawn evenly (AlpacaFarm pairs each instruction once)
    all           every pair
    best-worst    the output with the highest score against the one with the lowest
    swiss         neighbours in the standing: 1st against 2nd, 3rd against 4th, as in a Swiss tournament round
    uncertainty   the pairs whose scores are closest, where a verdict says most

The last three need a score for each output (a rating, a reward, a count of wins so far). Equal texts to one instruction
are one output. Which of the two comes first is drawn, so that a design by score favours no column.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.errors import UserError, nearest
from farm.tables.formats import read_outputs, read_pairs, read_table

Design = Literal["random", "all", "best-worst", "swiss", "uncertainty"]
DESIGNS: tuple[Design, ...] = ("random", "all", "best-worst", "swiss", "uncertainty")
_BY_SCORE = ("best-worst", "swiss", "uncertainty")


def read(
    path: Path,
    *,
    against: Path | None = None,
    design: str | None = None,
    per_instruction: int = 1,
    score: str = "score",
    seed: int = 0,
) -> pd.DataFrame:
    """Pairs from a file of pairs, or from one of outputs by a design, or from two of outputs head to head.

    Raises:
        UserError: for a file, or a combination of these, that gives no pairs.
    """
    if design is not None and design not in DESIGNS:
        raise UserError(f"there is no design `{design}`; {nearest(design, DESIGNS)}")
    if against is not None:
        if design is not None:
            raise UserError("two files are compared head to head: leave out either the design or the second file")
        return head_to_head(read_outputs(path), read_outputs(against))
    if design is None and "output" not in read_table(path).columns:
        return read_pairs(path)
    wanted: Design = next(d for d in DESIGNS if d == (design or "random"))
    return chosen(read_outputs(path), wanted, per_instruction=per_instruction, seed=seed, score=score)


def chosen(
    outputs: pd.DataFrame, design: Design = "random", *, per_instruction: int = 1, seed: int = 0, score: str = "score"
) -> pd.DataFrame:
    """Pairs of the outputs to the same instruction.

    Args:
        outputs: ``instruction, output`` and, where it is known, ``generator``; ``score`` for the designs that need it.
        per_instruction: at most so many pairs of an instruction; of no effect on "all", "best-worst" and "swiss".
        score: the column with the scores.

    Raises:
        UserError: where the scores are missing, or no instruction has two different outputs.
    """
    table = outputs.drop_duplicates(["instruction", "output"]).reset_index(drop=True)
    if design in _BY_SCORE:
        _require_scores(table, score, design)
    if design == "all" or design == "random" or design == "uncertainty":
        first, second = _all_pairs(table)
    else:
        first, second = _by_standing(table, score, design, seed)
    if not len(first):
        raise UserError("no instruction has two different outputs, so there is nothing to compare")
    if design in ("random", "uncertainty"):
        ids = _pair_ids(table, first, second)
        order = rng.uniform(seed, "design", ids)
        if design == "uncertainty":
            scores = table[score].to_numpy(dtype=np.float64)
            order = np.abs(scores[first] - scores[second]) + 1e-12 * order  # equally close pairs: by draw
        ranks = pd.Series(order).groupby(table["instruction"].to_numpy()[first]).rank(method="first")
        kept = ranks.to_numpy() <= per_instruction
        first, second = first[kept], second[kept]
    return _pairs(table, first, second, seed)


def head_to_head(outputs: pd.DataFrame, against: pd.DataFrame) -> pd.DataFrame:
    """One model's outputs (output_2) against another's (output_1, AlpacaEval's place for the baseline).

    Raises:
        UserError: when they have no instruction in common, or one has several outputs to an instruction.
    """
    for name, table in (("outputs", outputs), ("baseline", against)):
        twice = table["instruction"].duplicated()
        if twice.any():
            example = str(table["instruction"][twice].iloc[0])[:60]
            raise UserError(f"the {name} have several outputs to {example!r}: name a file with one each")
    columns = ["instruction", "output", *(["generator"] if "generator" in against.columns else [])]
    both = against[columns].merge(outputs, on="instruction", suffixes=("_1", "_2"))
    if both.empty:
        raise UserError("the two files have no instruction in common")
    if "generator_1" not in both.columns:
        both["generator_1"], both["generator_2"] = "one", both.pop("generator") if "generator" in both else "two"
    return both


def _require_scores(table: pd.DataFrame, score: str, design: str) -> None:
    if score not in table.columns:
        raise UserError(f"the design {design} needs a score of each output: there is no column `{score}`")
    missing = table[score].isna()
    if missing.any():
        raise UserError(f"row {int(np.flatnonzero(missing)[0]) + 1}: `{score}` is missing, which {design} needs")


def _all_pairs(table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of every pair of rows of one instruction."""
    groups = table.groupby("instruction", sort=False).indices.values()
    parts = [np.stack(np.triu_indices(len(rows), 1)) for rows in groups]
    pairs = [np.asarray(rows)[part] for rows, part in zip(groups, parts, strict=True)]
    both = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
    return both[0].astype(np.int64), both[1].astype(np.int64)


def _by_standing(
    table: pd.DataFrame, score: str, design: Design, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = rng.combine(rng.text_ids(table["instruction"]), rng.text_ids(table["output"]))
    ties = rng.uniform(seed, "standing", ids)
    names, _ = pd.factorize(table["instruction"])
    order = np.lexsort((ties, -table[score].to_numpy(dtype=np.float64), names))
    sorted_names = names[order]
    place = np.arange(len(order)) - np.searchsorted(sorted_names, sorted_names)
    size = np.bincount(names)[sorted_names]
    if design == "best-worst":
        return order[(place == 0) & (size > 1)], order[(place == size - 1) & (size > 1)]
    upper = np.flatnonzero((place % 2 == 0) & (place + 1 < size))
    return order[upper], order[upper + 1]


def _pair_ids(table: pd.DataFrame, first: NDArray[np.int64], second: NDArray[np.int64]) -> rng.Ids:
    texts, instructions = rng.text_ids(table["output"]), rng.text_ids(table["instruction"])
    return rng.combine(instructions[first], rng.unordered(texts[first], texts[second]))


def _pairs(table: pd.DataFrame, first: NDArray[np.int64], second: NDArray[np.int64], seed: int) -> pd.DataFrame:
    texts = rng.text_ids(table["output"])
    canonical = texts[first] <= texts[second]
    swap = (rng.uniform(seed, "place", _pair_ids(table, first, second)) < 0.5) ^ canonical
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    shared = ["instruction"]
    sides: Sequence[str] = [c for c in table.columns if c not in shared]
    out = {c: table[c].to_numpy()[first] for c in shared}
    for column in sides:
        out[f"{column}_1"], out[f"{column}_2"] = table[column].to_numpy()[first], table[column].to_numpy()[second]
    return pd.DataFrame(out)
