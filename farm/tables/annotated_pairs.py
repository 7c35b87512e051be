"""Annotated pairs 2.0: one JSON with every comparison once, and the verdict of each annotator beside it.

The layout that Feedback Forensics and ICAI read and write: ``annotators`` by id, and ``comparisons`` with ``prompt``,
``response_a``, ``response_b`` and ``annotations``, whose ``pref`` is a, b, tie, or null where there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.base import files
from farm.base.errors import UserError
from farm.tables.table_files import parse_json

VERSION = "2.0"


def looks_like(path: Path) -> bool:
    """Whether a file is one JSON object, as this layout is, and not a list of rows."""
    if path.suffix != ".json":
        return False
    files.check(path)
    with files.refusals(path, "read"), path.open("rb") as file:
        head = file.read(200).lstrip()
    return head.startswith(b"{")


def rows(path: Path) -> pd.DataFrame:
    """One row a verdict: ``id, instruction, output_1, output_2, generator_1, generator_2, annotator, winner`` (a word).

    Raises:
        UserError: naming the comparison at fault.
    """
    data = parse_json(files.read_bytes(path), path)
    if not isinstance(data, dict) or not isinstance(data.get("comparisons"), list):
        raise UserError(f"{path}: an object without `comparisons`; annotated pairs have them")
    described = data.get("annotators") or {}
    if not isinstance(described, dict):
        raise UserError(f"{path}: `annotators` is not an object; annotated pairs describe each under its id")
    names = {
        k: str(v.get("name") or v.get("description") or k) if isinstance(v, dict) else str(v)
        for k, v in described.items()
    }
    out = []
    for number, comparison in enumerate(data["comparisons"], start=1):
        try:
            one, two = comparison["response_a"], comparison["response_b"]
            annotations = comparison["annotations"]
            prompt = comparison.get("prompt")
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: comparison {number}: the field {error} is missing") from error
        if not isinstance(annotations, dict):
            raise UserError(f"{path}: comparison {number}: `annotations` is not an object")
        for response in (one, two):
            if isinstance(response, dict) and "text" not in response:
                raise UserError(f"{path}: comparison {number}: a response has no `text`")
        for annotator, said in annotations.items():
            pref = said.get("pref") if isinstance(said, dict) else said
            word = "tie" if str(pref).lower() in ("neither", "both") else str(pref).lower()
            out.append(
                {
                    "id": comparison.get("id", number),
                    "instruction": prompt,
                    "output_1": one["text"] if isinstance(one, dict) else str(one),
                    "output_2": two["text"] if isinstance(two, dict) else str(two),
                    "generator_1": one.get("model", "") if isinstance(one, dict) else "",
                    "generator_2": two.get("model", "") if isinstance(two, dict) else "",
                    "annotator": names.get(annotator, annotator),
                    "winner": word,
                }
            )
    if not out:
        raise UserError(f"{path}: holds no vote")
    return pd.DataFrame(out)


def document(votes: pd.DataFrame) -> dict[str, Any]:
    """The document of some votes, comparisons in the order they first occur.

    Args:
        votes: ``comparison`` (which one a row belongs to), ``instruction, output_1, output_2`` and where known
            ``generator_1, generator_2`` (of its first row), ``annotator``, and ``first``: the share of the win that
            output_1 takes, NaN for no verdict. Several votes of one annotator count as what most of them say.
    """
    names = {str(n): f"annotator_{k}" for k, n in enumerate(sorted(votes["annotator"].astype(str).unique()))}
    comparisons = [
        _comparison(number, part, names) for number, (_, part) in enumerate(votes.groupby("comparison", sort=False))
    ]
    return {
        "metadata": {"version": VERSION, "default_annotator": next(iter(names.values()))},
        "annotators": {key: {"name": name} for name, key in names.items()},
        "comparisons": comparisons,
    }


def _comparison(number: int, votes: pd.DataFrame, names: dict[str, str]) -> dict[str, Any]:
    head = votes.iloc[0]
    words = {name: _word(value) for name, value in votes.groupby("annotator")["first"].mean().items()}

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
