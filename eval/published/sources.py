"""What a leaderboard can be made of: a results directory, annotation files, or a published set by name.

A directory in AlpacaEval's layout is ``<model>/<annotator>/annotations.json``; the directory's name is the method's
name (files sometimes say something else, "example" for instance). A file's method is its ``model_dir``, ``method`` or
``generator_2``. Battles files are recognised by their columns and read by :mod:`eval.ratings.battles`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.published import people
from eval.published.orientation import check_judges
from eval.published.quick_json import Reader
from eval.published.rows import Names, baseline_of, frame, from_table, subset, turned_to
from eval.published.show import working
from farm.base.errors import OptionError, UserError
from farm.tables.formats import read_table


@dataclass(frozen=True)
class Rows:
    """All annotation rows of some sources, in the columns of :data:`eval.published.rows.COLUMNS` plus ``source``."""

    table: pd.DataFrame
    files: tuple[str, ...]
    """``source`` in the table is the place in this list"""
    skipped: tuple[str, ...] = field(default=())
    """models of a directory that the chosen annotator has not judged"""

    def where(self, position: int) -> str:
        """The file and row of a table row, for an error message."""
        row = self.table.iloc[position]
        return f"{self.files[int(row['source'])]}: row {int(row['row'])}"


def results_files(
    directory: Path, annotator: str | None, pool: bool = False
) -> tuple[list[tuple[str, Path]], list[str]]:
    """The (model, annotations file) of a results directory for one annotator or all, and the models that lack it.

    Raises:
        UserError: when the layout is not there, or several annotators are and none was named.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(directory.glob("*/*/annotations.json")):
        found.setdefault(path.parent.parent.name, {})[path.parent.name] = path
    if not found:  # the directory of one model
        for path in sorted(directory.glob("*/annotations.json")):
            found.setdefault(directory.resolve().name, {})[path.parent.name] = path
    if not found:
        raise UserError(f"{directory}: holds no <model>/<annotator>/annotations.json")
    names = sorted({name for judged in found.values() for name in judged})
    if pool:
        return [(model, path) for model, judged in found.items() for path in judged.values()], []
    if annotator is None:
        if len(names) > 1:
            raise OptionError(
                f"{directory}: several annotators are there; choose one with `annotator`: {', '.join(names)}"
            )
        annotator = names[0]
    if annotator not in names:
        raise UserError(f"{directory}: no model was judged by `{annotator}`; there are: {', '.join(names)}")
    chosen = [(model, judged[annotator]) for model, judged in found.items() if annotator in judged]
    return chosen, [model for model, judged in found.items() if annotator not in judged]


def read(
    sources: Sequence[Path],
    *,
    annotator: str | None = None,
    baseline: str | None = None,
    pool: bool = False,
    item: Sequence[str] = (),
) -> Rows:
    """The rows of directories and files, checked: every method judged once on each instruction, one baseline.

    Args:
        annotator: keep this annotator's rows only (in a directory: that subdirectory).
        baseline: keep the rows against this baseline only.
        pool: take all annotators for one, so that an instruction may have several votes.
        item: columns that name what was judged, in the place of the instruction.

    Raises:
        UserError: naming file and row.
    """
    listed: list[tuple[str | None, Path, bool]] = []
    skipped: list[str] = []
    for source in sources:
        if source.is_dir():
            files, lacking = results_files(source, annotator, pool)
            listed += [(model, path, True) for model, path in files]
            skipped += lacking
        else:
            listed.append((None, source, False))
    reader = Reader()
    parts = []
    with working("reading annotations", len(listed), worth=40) as task:
        for number, (model, path, chosen) in enumerate(listed):
            part = (
                from_table(people.as_annotations(read_table(path), str(path), item), path)
                if item
                else reader.read(path)
            )
            if model is not None:
                part["method"] = Names(np.zeros(len(part["row"]), np.int64), [model])
                part["annotator"] = Names(np.zeros(len(part["row"]), np.int64), [path.parent.name])
            if annotator is not None and not chosen:
                part = subset(part, _named(part["annotator"], annotator))
            part["source"] = np.full(len(part["row"]), number, np.int32)
            parts.append(part)
            task.advance()
    chosen_baseline = baseline_of(parts) if baseline is None else baseline
    if chosen_baseline is not None:
        parts = [turned_to(part, chosen_baseline) for part in parts]
    if baseline is not None:
        parts = [subset(part, _named(part["baseline"], baseline)) for part in parts]
    files_named = tuple(str(path) for _, path, _ in listed)
    rows = Rows(frame(parts), files_named, tuple(skipped))
    if not len(rows.table):
        what = " and ".join(
            f"{k} `{v}`" for k, v in (("annotator", annotator), ("baseline", baseline)) if v is not None
        )
        raise UserError(f"{', '.join(map(str, sources))}: no row of {what}")
    _check(rows, pool)
    return replace(rows, table=rows.table.assign(annotator=_everyone(len(rows.table)))) if pool else rows


def _everyone(n: int) -> pd.Categorical:
    return pd.Categorical.from_codes(np.zeros(n, np.int64), [people.POOLED])


def _named(names: Names, wanted: str) -> NDArray[np.bool_]:
    return np.array([n == wanted for n in names.names], dtype=bool)[names.codes]


def _check(rows: Rows, pool: bool) -> None:
    table = rows.table
    baselines = table["baseline"].cat.codes.to_numpy()
    mixed = np.flatnonzero(baselines != baselines[0])
    if mixed.size:
        first, other = table["baseline"].iloc[0], table["baseline"].iloc[int(mixed[0])]
        raise OptionError(
            f"{rows.where(int(mixed[0]))}: the baseline is `{other}` but the first row has `{first}`; "
            "choose one with `baseline`, or write battles by `farm convert` and rank those"
        )
    method, judge = (table[c].cat for c in ("method", "annotator"))
    if not pool:
        check_judges(
            [str(m) for m in method.categories], method.codes.to_numpy(np.int64),
            [str(j) for j in judge.categories], judge.codes.to_numpy(np.int64),
            "choose one with `annotator`, or take all for one with `pool`",
        )  # fmt: skip
    told_apart = not pool or len(judge.categories) > 1
    repeated = np.flatnonzero(table.duplicated(["method", "key", *(["annotator"] if pool else [])]).to_numpy())
    if repeated.size and told_apart:
        at = int(repeated[0])
        row = table.iloc[at]
        same = (table["method"] == row["method"]) & (table["key"] == row["key"])
        if pool:
            same &= table["annotator"] == row["annotator"]
        earlier = int(np.flatnonzero(same.to_numpy())[0])
        before = table.iloc[earlier]
        if before["annotator"] != row["annotator"]:
            raise OptionError(
                f"{rows.where(at)}: `{row['method']}` is judged by `{row['annotator']}` and `{before['annotator']}`; "
                "choose one with `annotator`, or take all for one with `pool`"
            )
        raise UserError(
            f"{rows.where(at)}: `{row['method']}` is judged twice on this instruction "
            f"(first in {rows.where(earlier)}); remove one"
        )
