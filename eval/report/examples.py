"""Examples side by side: drawn at random, not selected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from eval.rates.winrate import scores
from eval.report import wording
from eval.report.folder import BASELINE, RunFolder
from eval.report.tables import Palette
from farm.base import rng
from farm.base.markup import visible
from farm.tables.turns import transcript

LONGEST = 3000
"""characters shown of a text; an answer of a book must not become a report of a library"""


def section(run: RunFolder, palette: Palette, wanted: int) -> dict[str, Any]:
    """``wanted`` instructions with the first answer of the baseline and of every method, and the verdicts."""
    needed = {"method", "instruction", "output"}
    if not needed <= set(run.outputs.columns) or not len(run.outputs):
        return {"missing": "The answers are not in this run folder (tables/outputs.parquet)."}
    if wanted == 0:
        return {"missing": "Examples were switched off (`examples: 0`)."}
    outputs = run.outputs.assign(sample=run.outputs.get("sample", 0))
    outputs = outputs[outputs["sample"] == outputs["sample"].min()].drop_duplicates(["method", "instruction"])
    instructions = outputs["instruction"].drop_duplicates().tolist()
    order = rng.permutation(rng.text_ids(instructions), run.seed, "report examples")[:wanted]
    chosen = [instructions[i] for i in order]
    answers = dict(_by(outputs, chosen))
    verdicts = {role: dict(_by(_first_sample(table), chosen)) for role, table in run.judged.items()}
    shown = [_example(run, palette, text, answers, verdicts) for text in chosen]
    methods = [(m, palette.colour(m)) for m in run.methods if any(m == c["method"] for e in shown for c in e["cards"])]
    return {
        "examples": shown,
        "methods": methods,
        "total": len(instructions),
        "gold": any(c["gold"] for e in shown for c in e["cards"]),
        "several": len(verdicts) > 1,
        "first_role": wording.role(next(iter(verdicts), "judge")),
    }


def _by(table: pd.DataFrame, chosen: list[str]) -> list[tuple[tuple[str, str], dict[Any, Any]]]:
    rows = table[table["instruction"].isin(chosen)].to_dict(orient="records")
    return [((str(row["method"]), row["instruction"]), row) for row in rows]


def _first_sample(table: pd.DataFrame) -> pd.DataFrame:
    if "method" not in table:
        table = table.assign(method=table.get("generator_2", ""))
    if "sample" in table:
        table = table[table["sample"] == table["sample"].min()]
    table = table.drop_duplicates(["method", "instruction"])
    return table.assign(score=scores(table["preference"]))


def _example(
    run: RunFolder,
    palette: Palette,
    instruction: str,
    answers: dict[tuple[str, str], dict[Any, Any]],
    verdicts: dict[str, dict[tuple[str, str], dict[Any, Any]]],
) -> dict[str, Any]:
    cards = []
    for method in run.methods:
        answer = answers.get((method, instruction))
        if answer is None:
            continue
        said = [
            {"role": wording.role(role), "short": role, **_verdict(found[method, instruction])}
            for role, found in verdicts.items()
            if (method, instruction) in found
        ]
        sides = {v["side"] for v in said} - {"none"}
        cards.append(
            {
                "method": method,
                "colour": palette.colour(method),
                "text": _cut(answer["output"]),
                "gold": wording.number(answer["gold"], 2, signed=True) if wording.known(answer.get("gold")) else "",
                "cut": answer.get("finish_reason") == "length",
                "verdicts": said,
                "split": len(sides) > 1,
            }
        )
    baseline = _baseline(instruction, answers, verdicts)
    first, asked = instruction.strip().split("\n")[0], _asked(instruction, answers)
    return {
        "instruction": _cut(asked),
        "heading": _cut(first if len(first) <= 110 else first[:107].rstrip() + "…"),
        "whole": first == asked.strip() and len(first) <= 110,
        "baseline": None if baseline is None else _cut(baseline),
        "cards": cards,
    }


def _asked(instruction: str, answers: dict[tuple[str, str], dict[Any, Any]]) -> str:
    """What was answered: the instruction, or the whole conversation with who speaks."""
    rest = next((row.get("turns") for (_, first), row in answers.items() if first == instruction), None)
    if not isinstance(rest, (list, np.ndarray)) or not len(rest):
        return instruction
    return transcript((instruction, *map(str, rest)))


def _verdict(row: dict[Any, Any]) -> dict[str, str]:
    score = float(row["score"])
    if np.isnan(score):
        return {"side": "none", "words": str(row.get("status") or "no verdict")}
    if score == 0.5:
        return {"side": "tie", "words": "tie"}
    strength = "" if score in (0.0, 1.0) else f" ({wording.number(max(score, 1 - score), 2)})"
    return (
        {"side": "win", "words": "prefers this" + strength}
        if score > 0.5
        else {"side": "loss", "words": "prefers baseline" + strength}
    )


def _baseline(
    instruction: str,
    answers: dict[tuple[str, str], dict[Any, Any]],
    verdicts: dict[str, dict[tuple[str, str], dict[Any, Any]]],
) -> str | None:
    """What the methods' answers were compared with."""
    for found in verdicts.values():
        for (_, asked), row in found.items():
            if asked == instruction and isinstance(row.get("output_1"), str):
                return str(row["output_1"])
    own = answers.get((BASELINE, instruction), {}).get("baseline")
    return own if isinstance(own, str) else None


def _cut(text: object) -> str:
    words = visible(text)
    return (
        words
        if len(words) <= LONGEST
        else f"{words[:LONGEST]} … ({wording.count(len(words) - LONGEST)} more characters)"
    )
