"""Votes as annotated pairs 2.0: one JSON with every comparison once and the verdict of each annotator beside it.

The layout that Feedback Forensics and ICAI read; :func:`farm.votes.table.read_votes` reads it back. An annotator that
voted several times on a pair gives the verdict of most of its votes, a tie where they are even.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.base import files
from farm.base.errors import UserError

_TEXTS = ("instruction", "output_1", "output_2")


def annotated_pairs(tables: Sequence[pd.DataFrame], origin: str = "the votes") -> dict[str, Any]:
    """The document of some vote tables (:mod:`farm.votes.table`), comparisons in the order they first occur.

    Raises:
        UserError: for votes without texts, which the layout must have.
    """
    for table in tables:
        lacking = [c for c in _TEXTS if c not in table]
        if lacking:
            raise UserError(f"{origin}: annotated pairs carry the texts, and the column `{lacking[0]}` is missing")
    votes = pd.concat(tables, ignore_index=True)
    names = {str(n): f"annotator_{k}" for k, n in enumerate(sorted(votes["annotator"].astype(str).unique()))}
    comparisons = [
        _comparison(number, rows, names) for number, (_, rows) in enumerate(votes.groupby("item", sort=False))
    ]
    return {
        "metadata": {"version": "2.0", "default_annotator": next(iter(names.values()))},
        "annotators": {key: {"name": name} for name, key in names.items()},
        "comparisons": comparisons,
    }


def _comparison(number: int, rows: pd.DataFrame, names: dict[str, str]) -> dict[str, Any]:
    head = rows.iloc[0]
    turned = bool(head["flipped"])  # the first row's own order is the order that is written
    share = rows.assign(_a=1 - rows["first"] if turned else rows["first"]).groupby("annotator")["_a"].mean()
    words = {name: _word(value) for name, value in share.items()}

    def response(side: str) -> dict[str, str]:
        model = head.get(f"generator_{side}")
        return {"text": str(head[f"output_{side}"])} | (
            {"model": str(model)} if isinstance(model, str) and model else {}
        )

    return {
        "id": str(number),
        "prompt": str(head["instruction"]),
        "response_a": response("1"),
        "response_b": response("2"),
        "annotations": {names[str(name)]: {"pref": word} for name, word in words.items()},
        "metadata": {},
    }


def _word(share: float) -> str | None:
    if np.isnan(share):
        return None
    return "tie" if share == 0.5 else "a" if share > 0.5 else "b"


def check_export(path: Path, inputs: Sequence[Path | None] = ()) -> None:
    """Refuse a file of another kind, or one that cannot be written, before the work."""
    if path.suffix != ".json":
        raise UserError(f"{path}: annotated pairs are a .json file")
    files.check_out(path, inputs)


def write_annotated_pairs(tables: Sequence[pd.DataFrame], path: Path, origin: str = "the votes") -> None:
    """Write the document, whole or not at all."""
    check_export(path)
    files.write_text(path, json.dumps(annotated_pairs(tables, origin), indent=1, ensure_ascii=False))
