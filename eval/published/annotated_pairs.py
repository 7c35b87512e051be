"""Votes as annotated pairs 2.0 (:mod:`farm.tables.annotated_pairs`), which :mod:`farm.votes.table` reads back.

An annotator that voted several times on a pair gives the verdict of most of its votes, a tie where they are even.
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
from farm.tables.annotated_pairs import document

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
    # The order of an item's first row is the order that is written.
    turned = votes.groupby("item", sort=False)["flipped"].transform("first").to_numpy(bool)
    first = votes["first"].to_numpy(np.float64)
    return document(votes.assign(comparison=votes["item"], first=np.where(turned, 1 - first, first)))


def check_export(path: Path, inputs: Sequence[Path | None] = ()) -> None:
    """Refuse a file of another kind, or one that cannot be written, before the work."""
    if path.suffix != ".json":
        raise UserError(f"{path}: annotated pairs are a .json file")
    files.check_out(path, inputs)


def write_annotated_pairs(tables: Sequence[pd.DataFrame], path: Path, origin: str = "the votes") -> None:
    """Write the document, whole or not at all."""
    check_export(path)
    files.write_text(path, json.dumps(annotated_pairs(tables, origin), indent=1, ensure_ascii=False))
