"""Which responses to one instruction are put together, and asked about.

Pairs:
    random        pairs drawn evenly (AlpacaFarm pairs each instruction once)
    all           every pair
    best-worst    the output with the highest score against the one with the lowest
    swiss         neighbours in the standing: 1st against 2nd, 3rd against 4th, as in a Swiss tournament round
    ranked        every output against the next one in the standing: 1st against 2nd, 2nd against 3rd, ...
    uncertainty   the pairs whose scores are closest, where a verdict says most
    adjacent      the 1st row against the 2nd, the 3rd against the 4th, as they stand: first draws against second ones

Other kinds: **singles**, every response by itself; **groups**, all responses to an instruction; **triples**, an anchor
and two others, drawn evenly.

Best-worst, swiss, ranked and uncertainty need a score for each output (a rating, a reward, a count of wins so far).
Equal texts to one instruction are one output, but in adjacent pairs and singles, which take rows as they are. Which of
two comes first is drawn, so that a design by score favours no column; in adjacent pairs it is the first row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.errors import UserError, nearest
from farm.tables.given_answers import numbers
from farm.tables.turns import row_ids

BY_SCORE = ("best-worst", "swiss", "ranked", "uncertainty")
DESIGNS = ("random", "all", *BY_SCORE)
"""of pairs, whatever the order of the rows"""
OF_PROMPT = ("instruction", "turns", "prompt", "prompt_tokens", "split", "dataset", "topic", "answer")
"""columns of the prompt, which rows put together have in common"""


@dataclass(frozen=True)
class Design:
    """Which responses are put together."""

    name: str = ""
    """one of the kind's designs; its first where nothing is said"""
    per_instruction: int = 1
    """at most so many pairs or triples of an instruction (random, uncertainty, triples)"""
    score: str = "score"
    """the column of scores, for designs by score"""


def require_design(design: Design, kind: str, known: Sequence[str]) -> Design:
    """The design with its name. Raises UserError for one that a kind of feedback has not."""
    name = design.name or known[0]
    if name not in known:
        raise UserError(f"{kind}: there is no design `{name}`; {nearest(name, known)}")
    return Design(name, design.per_instruction, design.score)


def chosen(
    outputs: pd.DataFrame, design: str = "random", *, per_instruction: int = 1, seed: int = 0, score: str = "score"
) -> pd.DataFrame:
    """Pairs of the outputs to the same instruction.

    Args:
        outputs: ``instruction, output`` and, where it is known, ``generator``; ``score`` for the designs that need it.
        per_instruction: at most so many pairs of an instruction; of no effect on "all", "best-worst" and "swiss".
        score: the column with the scores.

    Raises:
        UserError: where the scores are missing, or no instruction has two different outputs.
    """
    if design == "adjacent":
        return _adjacent(outputs)
    table = _distinct(outputs)
    if design in BY_SCORE:
        table = table.assign(**{score: _scores(table, score, design)})
    if design in ("all", "random", "uncertainty"):
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
        kept = _smallest(order, row_ids(table)[first], per_instruction)
        first, second = first[kept], second[kept]
    return _pairs(table, first, second, seed)


def singles(table: pd.DataFrame) -> pd.DataFrame:
    """Every output by itself: those of the rows, or of pairs both sides, first outputs first."""
    if "output_1" not in table.columns:
        return table
    sides = []
    for k in ("1", "2"):
        columns = {c: table[c] for c in OF_PROMPT if c in table.columns} | {"output": table[f"output_{k}"]}
        if f"generator_{k}" in table.columns:
            columns["generator"] = table[f"generator_{k}"]
        sides.append(pd.DataFrame(columns))
    return pd.concat(sides, ignore_index=True)


def groups(table: pd.DataFrame) -> pd.DataFrame:
    """The outputs to each instruction as one row: a list ``outputs``, and of every other column one with its ``s``.

    Raises:
        UserError: where no instruction has two outputs.
    """
    if "outputs" in table.columns:
        return table
    rows = singles(table)
    ids = row_ids(rows)
    shared = [c for c in OF_PROMPT if c in rows.columns]
    listed = {f"{c}s": (c, list) for c in rows.columns if c not in shared}
    grouped = rows.groupby(ids, sort=False).agg(**{c: (c, "first") for c in shared}, **listed)
    kept = grouped[grouped["outputs"].map(len) > 1].reset_index(drop=True)
    if kept.empty:
        raise UserError("no instruction has two outputs, so there is nothing to put together")
    return kept


def triples(table: pd.DataFrame, per_instruction: int, seed: int) -> pd.DataFrame:
    """``anchor``, ``output_1`` and ``output_2`` of the outputs to an instruction, drawn evenly; which is which, too.

    Raises:
        UserError: where no instruction has three different outputs.
    """
    if "anchor" in table.columns:
        return table
    rows = _distinct(singles(table))
    ids, texts = row_ids(rows), rng.text_ids(rows["output"])
    found = [
        (places[a], places[b], places[c])
        for places in rows.groupby(ids, sort=False).indices.values()
        for a in range(len(places))
        for b, c in combinations([k for k in range(len(places)) if k != a], 2)
    ]
    if not found:
        raise UserError("no instruction has three different outputs, so there are no triplets to compare")
    anchor, first, second = np.array(found, dtype=np.int64).T
    drawn = rng.uniform(seed, "design", ids[anchor], texts[anchor], rng.unordered(texts[first], texts[second]))
    kept = _smallest(drawn, ids[anchor], per_instruction)
    table = _pairs(rows, first[kept], second[kept], seed)
    beside = [c for c in rows.columns if c not in OF_PROMPT and c != "output"]
    there = {f"{c}_anchor": rows[c].to_numpy()[anchor[kept]] for c in beside}
    return table.assign(anchor=rows["output"].to_numpy()[anchor[kept]], **there)


def head_to_head(outputs: pd.DataFrame, against: pd.DataFrame) -> pd.DataFrame:
    """One model's outputs (output_2) against another's (output_1, AlpacaEval's place for the baseline).

    Raises:
        UserError: when they have no instruction in common, or one has several outputs to an instruction.
    """
    for name, table in (("outputs have", outputs), ("baseline has", against)):
        twice = pd.Series(row_ids(table), index=table.index).duplicated()
        if twice.any():
            example = str(table["instruction"][twice].iloc[0])[:60]
            raise UserError(f"the {name} several outputs to {example!r}: name a file with one each")
    columns = ["output", *(["generator"] if "generator" in against.columns else [])]
    theirs, ours = against.assign(prompt_id=row_ids(against)), outputs.assign(prompt_id=row_ids(outputs))
    both = theirs[["prompt_id", *columns]].merge(ours, on="prompt_id", suffixes=("_1", "_2"))
    both = both[["instruction", *(c for c in both.columns if c not in ("instruction", "prompt_id"))]]
    if both.empty:
        raise UserError("the two files have no instruction in common")
    if "generator_1" not in both.columns:
        both["generator_1"], both["generator_2"] = "one", both.pop("generator") if "generator" in both else "two"
    return both


def _distinct(outputs: pd.DataFrame) -> pd.DataFrame:
    """Equal texts to one prompt are one output."""
    ids = rng.combine(row_ids(outputs), rng.text_ids(outputs["output"]))
    return outputs[~pd.Series(ids).duplicated().to_numpy()].reset_index(drop=True)


def _smallest(values: NDArray[np.float64], ids: rng.Ids, count: int) -> NDArray[np.bool_]:
    """Where the ``count`` smallest values of each id are."""
    return np.asarray(pd.Series(values).groupby(ids).rank(method="first").to_numpy() <= count)


def _adjacent(outputs: pd.DataFrame) -> pd.DataFrame:
    codes, _ = pd.factorize(row_ids(outputs))
    order = np.argsort(codes, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(codes[order], codes[order])
    upper = np.flatnonzero((place[:-1] % 2 == 0) & (codes[order][:-1] == codes[order][1:]))
    upper = upper[np.argsort(order[upper], kind="stable")]
    if not len(upper):
        raise UserError("no instruction has two outputs, so there is nothing to compare")
    return _sides(outputs, order[upper], order[upper + 1])


def _scores(table: pd.DataFrame, score: str, design: str) -> pd.Series:
    if score not in table.columns:
        raise UserError(f"the design {design} needs a score of each output: there is no column `{score}`")
    missing = table[score].isna()
    if missing.any():
        raise UserError(f"row {int(np.flatnonzero(missing)[0]) + 1}: `{score}` is missing, which {design} needs")
    return numbers(table[score], score, f"design {design}")


def _all_pairs(table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of every pair of rows of one instruction."""
    places = table.groupby(row_ids(table), sort=False).indices.values()
    parts = [np.stack(np.triu_indices(len(rows), 1)) for rows in places]
    pairs = [np.asarray(rows)[part] for rows, part in zip(places, parts, strict=True)]
    both = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
    return both[0].astype(np.int64), both[1].astype(np.int64)


def _by_standing(
    table: pd.DataFrame, score: str, design: str, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    prompts = row_ids(table)
    ties = rng.uniform(seed, "standing", rng.combine(prompts, rng.text_ids(table["output"])))
    names, _ = pd.factorize(prompts)
    order = np.lexsort((ties, -table[score].to_numpy(dtype=np.float64), names))
    sorted_names = names[order]
    place = np.arange(len(order)) - np.searchsorted(sorted_names, sorted_names)
    size = np.bincount(names)[sorted_names]
    if design == "best-worst":
        return order[(place == 0) & (size > 1)], order[(place == size - 1) & (size > 1)]
    upper = np.flatnonzero(((place % 2 == 0) | (design == "ranked")) & (place + 1 < size))
    return order[upper], order[upper + 1]


def _pair_ids(table: pd.DataFrame, first: NDArray[np.int64], second: NDArray[np.int64]) -> rng.Ids:
    texts, instructions = rng.text_ids(table["output"]), row_ids(table)
    return rng.combine(instructions[first], rng.unordered(texts[first], texts[second]))


def _pairs(table: pd.DataFrame, first: NDArray[np.int64], second: NDArray[np.int64], seed: int) -> pd.DataFrame:
    texts = rng.text_ids(table["output"])
    canonical = texts[first] <= texts[second]
    swap = (rng.uniform(seed, "place", _pair_ids(table, first, second)) < 0.5) ^ canonical
    return _sides(table, np.where(swap, second, first), np.where(swap, first, second))


def _sides(table: pd.DataFrame, first: NDArray[np.int64], second: NDArray[np.int64]) -> pd.DataFrame:
    """One row a pair of rows: what is of the prompt once, all else with ``_1`` and ``_2``."""
    out: dict[str, Any] = {c: table[c].to_numpy()[first] for c in OF_PROMPT if c in table.columns}
    for column in table.columns:
        if column not in out:
            out[f"{column}_1"], out[f"{column}_2"] = table[column].to_numpy()[first], table[column].to_numpy()[second]
    return pd.DataFrame(out)
