"""Wrong inputs by enumeration: each command with good files, and one thing wrong in one of them.

A case is a command line with one file replaced: one cell, one column, or the whole file. What a cell may hold is
:data:`CELLS`; :func:`cases` makes the product with all commands, columns and formats.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUGE = 10**400
LONG = "x" * 3_000
CELLS: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "minus": -1,
    "big": 10**30,
    "huge": HUGE,
    "tiny": 1e-320,
    "float": 1e300,
    "nan": float("nan"),
    "infinite": float("inf"),
    "list": [1, "a"],
    "deep list": [[[[]]]],
    "object": {"a": 1},
    "empty": "",
    "blank": " \t\n",
    "surrogate": "a\ud800b",
    "NUL": "a\x00b",
    "long": LONG,
    "escape": "\x1b[2Jx",
    "direction": "\u202ea",
    "formula": "=cmd|' /C calc'!A0",
    "digits": "9" * 5_000,
    "word": "NaN",
}
"""What one cell may hold."""


def annotations(n: int = 8) -> list[dict[str, Any]]:
    return [
        {
            "id": k % 4,
            "instruction": f"i{k % 4}",
            "output_1": "a" * (k + 1),
            "output_2": "b " * (2 * k + 1),
            "generator_1": "base",
            "generator_2": "mn"[k // 4],
            "annotator": "j",
            "preference": [1, 2, 1.5, 2, 1, 2, 2, 1][k % 8],
            "dataset": "d",
        }
        for k in range(n)
    ]


def battles() -> list[dict[str, Any]]:
    met = [
        ("a", "b", "model_a"),
        ("b", "c", "model_a"),
        ("c", "a", "model_a"),
        ("a", "b", "tie"),
        ("b", "a", "model_b"),
    ]
    return [
        {"id": k // 2, "model_a": a, "model_b": b, "winner": w, "worker": "xy"[k % 2]}
        for k, (a, b, w) in enumerate(met)
    ]


def votes() -> list[dict[str, Any]]:
    return [
        {
            "pair_id": k // 4,
            "instruction": f"i{k // 4}",
            "output_1": f"one {k // 4}",
            "output_2": f"another {k // 4}",
            "annotator": f"p{k % 4}",
            "preference": 1 + (k * 7 // 3) % 2,
        }
        for k in range(48)
    ]


def outputs(name: str = "m", more: int = 0) -> list[dict[str, Any]]:
    return [
        {"instruction": f"i{k // 2 if more else k}", "output": f"{name} says {k}", "generator": name, "score": k / 2}
        for k in range(4 * (1 + more))
    ]


TABLES: dict[str, list[dict[str, Any]]] = {
    "annotations": annotations(),
    "battles": battles(),
    "votes": votes(),
    "judge": [r | {"annotator": "judge"} for r in votes() if r["annotator"] == "p0"],
    "verdicts": [{"pair_id": k, "preference": 1 + k % 2, "annotator": "judge"} for k in range(12)],
    "texts": [
        {"pair_id": k, "instruction": f"i{k}", "output_1": f"- one\n- {k}", "output_2": f"another {k} " * 5}
        for k in range(12)
    ],
    "runs": [
        {"id": k, "winner": 1 + k % 2, "human_label": 1 + k // 3 % 2, "judge": "j", "swapped": k % 2}
        for k in range(12)
    ],
    "outputs": outputs(),
    "several": outputs(more=1),
    "baseline": outputs("base"),
    "difficulty": [{"instruction": f"i{k}", "instruction_difficulty": k / 3} for k in range(4)],
    "published": [{"method": m, "win_rate": 50.0, "n_total": 4} for m in "mn"],
    "row": [{"": "humans", "Human agreement": 65.7, "Variance": 34.3, "Proba. prefer longer": 0.6,
             "Proba. prefer lists": 0.6, "Proba. prefer 1": 0.5}],
}  # fmt: skip

COMMANDS: dict[str, str] = {
    "leaderboard": "leaderboard <annotations> --out out.csv",
    "leaderboard difficulty": "leaderboard <annotations> --difficulty <difficulty> --out out.json",
    "leaderboard published": "leaderboard <annotations> --published <published>",
    "ratings": "leaderboard <battles> --cluster id --rounds 5 --out out.parquet",
    "elo": "leaderboard <battles> --metrics elo --json",
    "evaluate": "evaluate <annotations> --out out.jsonl",
    "evaluate human": "evaluate <annotations> --human <votes> --json",
    "evaluate judge": "evaluate <outputs> --judge training --baseline <baseline> --annotations kept.csv",
    "validate": "validate <judge> --out out.csv",
    "validate human": "validate <judge> --human <votes> --rounds 5 --export pairs.json",
    "validate pairs": "validate <verdicts> --pairs <texts> --json",
    "validate runs": "validate <runs> --out out.csv",
    "annotate": "annotate <texts> --annotators training --out out.parquet",
    "annotate csv": "annotate <texts> --annotators training --out out.csv",
    "annotate outputs": "annotate <several> --annotators training --design best-worst --out out.json",
    "annotate against": "annotate <outputs> --annotators training --against <baseline> --out out.jsonl",
    "calibrate": "calibrate <votes> --groups 1 --out out.yaml",
    "calibrate row": "calibrate <row> --pairs <texts> --out out.yaml",
}
FORMATS = (".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Case:
    """One command line with one wrong file."""

    command: str
    file: str
    """which of its files is wrong"""
    suffix: str
    column: str
    wrong: str
    """a key of CELLS, "whole " and one, or a name of :data:`SHAPES`"""

    def __str__(self) -> str:
        return f"{self.command}: {self.file}{self.suffix} {self.column} {self.wrong}"

    def arguments(self, folder: Path) -> list[str]:
        """The command line; its files are written into ``folder``."""
        line = []
        for word in COMMANDS[self.command].split():
            if word.startswith("<"):
                name = word[1:-1]
                suffix = ".csv" if name == "row" else self.suffix if name == self.file else ".json"
                path = folder / f"{name}{suffix}"
                path.write_bytes(self.content() if name == self.file else written(TABLES[name], suffix))
                word = str(path)
            elif "." in word:
                word = str(folder / "out" / word)
            line.append(word)
        return line

    def content(self) -> bytes:
        rows = [dict(row) for row in TABLES[self.file]]
        if self.wrong in SHAPES:
            return SHAPES[self.wrong](rows, self.column, self.suffix)
        wrong = self.wrong.removeprefix("whole ")
        for row in rows if wrong != self.wrong else rows[1:2] or rows:
            row[self.column] = CELLS[wrong]
        return written(rows, self.suffix)


def _dropped(rows: list[dict[str, Any]], column: str, suffix: str) -> bytes:
    return written([{k: v for k, v in row.items() if k != column} for row in rows], suffix)


def _headed(rows: list[dict[str, Any]], column: str, suffix: str) -> bytes:
    return written(rows[:0], suffix, list(rows[0]))


def _twice(rows: list[dict[str, Any]], column: str, suffix: str) -> bytes:
    whole = written(rows, suffix)
    if suffix in (".json", ".jsonl"):
        name = json.dumps(column).encode()
        return whole.replace(b"{", b"{" + name + b": 1, ", 1)
    return whole


def _cut(rows: list[dict[str, Any]], column: str, suffix: str) -> bytes:
    whole = written(rows, suffix)
    return whole[: len(whole) * 2 // 3]


def _bits(rows: list[dict[str, Any]], column: str, suffix: str) -> bytes:
    whole = bytearray(written(rows, suffix))
    at = int.from_bytes(hashlib.blake2b(column.encode(), digest_size=4).digest(), "little") % len(whole)
    whole[at] ^= 0x80
    return bytes(whole)


SHAPES = {"dropped": _dropped, "no rows": _headed, "key twice": _twice, "cut": _cut, "one bit": _bits}


def written(rows: list[dict[str, Any]], suffix: str, columns: list[str] | None = None) -> bytes:
    """Rows as the bytes of a file, without our own writers."""
    names = columns or list(dict.fromkeys(name for row in rows for name in row))
    if suffix == ".json":
        return json.dumps(rows).encode()
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if suffix == ".csv":
        import csv
        import io

        text = io.StringIO()
        out = csv.writer(text)
        out.writerow(names)
        out.writerows([["" if row.get(n) is None else row.get(n) for n in names] for row in rows])
        return text.getvalue().encode("utf-8", "surrogatepass")
    return _parquet(rows, names)


def _parquet(rows: list[dict[str, Any]], names: list[str]) -> bytes:
    """Columns as Arrow types where it has one for what they hold; else as the bytes of their texts."""
    import io

    import pyarrow as pa
    import pyarrow.parquet

    arrays = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            array = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
            array = pa.array([None if v is None else str(v).encode("utf-8", "surrogatepass") for v in values])
        if pa.types.is_null(array.type):
            array = array.cast(pa.int64())
        arrays.append(array)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(arrays, names=names), buffer)
    return buffer.getvalue()


def cases() -> Iterator[Case]:
    """All cases, thousands."""
    for command, line in COMMANDS.items():
        for word in line.split():
            if not word.startswith("<"):
                continue
            name = word[1:-1]
            for suffix in FORMATS if name != "row" else (".csv",):
                columns = list(TABLES[name][0])
                for column in columns:
                    for wrong in CELLS:
                        yield Case(command, name, suffix, column, wrong)
                        yield Case(command, name, suffix, column, f"whole {wrong}")
                    for wrong in SHAPES:
                        yield Case(command, name, suffix, column, wrong)


def order(case: Case) -> bytes:
    """A place in an order that is drawn once and for all."""
    return hashlib.blake2b(str(case).encode("utf-8", "surrogatepass"), digest_size=8).digest()
