"""Wrong inputs by enumeration: each command with good files, and one thing wrong in one of them.

A case is a command line with one file replaced: one cell, one column, or the whole file; or with one odd word. What a
cell may hold is :data:`CELLS`; :func:`cases` makes the product with all commands, columns and formats.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
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
    "principles": "principles <verdicts> --pairs <texts> --least 0 --out out.yaml",
    "bias": "bias <outputs> --judge training --baseline <baseline> --out out.csv",
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
        return spoilt(TABLES[self.file], self.column, self.wrong, self.suffix)


def spoilt(table: list[dict[str, Any]], column: str, wrong: str, suffix: str) -> bytes:
    """A file of these rows with one thing wrong: a cell, a column (``whole ...``), or one of :data:`SHAPES`."""
    rows = [dict(row) for row in table]
    if wrong in SHAPES:
        return SHAPES[wrong](rows, column, suffix)
    cell = wrong.removeprefix("whole ")
    for row in rows if cell != wrong else rows[1:2] or rows:
        row[column] = CELLS[cell]
    return written(rows, suffix)


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


_OF_A_COLUMN = (*CELLS, *(f"whole {name}" for name in CELLS), *SHAPES)

STATUS = {
    "name": "small",
    "state": "running",
    "started": 1e9,
    "process": 1,
    "host": "elsewhere",
    "artifacts": "/nowhere",
    "at_once": 2,
    "stages": [
        {"name": f"stage {k}", "kind": "sft", "folder": f"f{k}", "state": state, "estimate": 3.5, "time": 1e9 + k,
         "reason": "of no kind"}
        for k, state in enumerate(("running", "done", "to do", "failed", "found", "blocked"))
    ],
}  # fmt: skip

_REPORTED = (
    "config.yaml", "environment.json", "costs.json", "metrics.jsonl", "leaderboard.json", "pairwise.json",
    "agreement.json", "tables/outputs.parquet", "tables/preferences.parquet", "tables/judge_judge.parquet",
    "tables/judge_gold.parquet",
)  # fmt: skip
RUN_COMMANDS = {
    "report <run> --json": _REPORTED,
    "compare <run> <good> --out out.html": _REPORTED,
    "compare <good> <run> --out out.html --json": ("config.yaml", "tables/judge_judge.parquet"),
    "status <run>": ("status.json",),
    "status <run> --json": ("status.json",),
}
"""command line -> files of the run folder that it reads"""


@dataclass(frozen=True)
class RunCase:
    """One command line on a run folder in which one file is wrong."""

    command: str
    file: str
    place: str
    """a column, or the keys on the way to a value, with dots between them"""
    wrong: str
    run: Path
    """the good one"""

    def __str__(self) -> str:
        return f"{self.command}: {self.file} {self.place} {self.wrong}"

    def arguments(self, folder: Path) -> list[str]:
        shutil.copytree(self.run, folder / "run")
        (path := folder / "run" / self.file).write_bytes(self.content(self.run / self.file))
        places = {"<run>": folder / "run", "<good>": self.run, "out.html": folder / "out" / "out.html"}
        assert path.is_file()
        return [str(places.get(word, word)) for word in self.command.split()]

    def content(self, good: Path) -> bytes:
        found = _parsed(good)
        if isinstance(found, list):
            return spoilt(found, self.place, self.wrong, good.suffix)
        if self.wrong in ("cut", "one bit"):
            return SHAPES[self.wrong]([{"file": found}], self.place, ".jsonl")
        *way, last = self.place.split(".")
        holder = found
        for key in way:
            holder = holder[int(key) if isinstance(holder, list) else key]
        if self.wrong == "dropped":
            del holder[last]
        else:
            holder[last] = CELLS[self.wrong]
        return json.dumps(found).encode()


def _parsed(path: Path) -> Any:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    if path.suffix == ".yaml":
        import yaml

        return yaml.safe_load(text)
    return json.loads(text)


def _spots(path: Path) -> Iterator[tuple[str, Iterable[str]]]:
    """What can be wrong in a file of a run folder: a column, or a value of an object and of what is in it."""
    found = _parsed(path)
    if isinstance(found, list):
        for column in dict.fromkeys(name for row in found for name in row):
            yield column, _OF_A_COLUMN
        return
    yield "", ("cut", "one bit")
    for way in _ways(found):
        yield way, (*CELLS, "dropped")


def _ways(found: dict[str, Any]) -> Iterator[str]:
    for key, value in found.items():
        yield key
        inner = [(key, value)] if isinstance(value, dict) else []
        if isinstance(value, list):
            inner = [(f"{key}.{k}", item) for k, item in enumerate(value) if isinstance(item, dict)]
        for name, item in inner:
            yield from (f"{name}.{below}" for below in _ways(item))


WORDS = (
    "", " ", "nan", "inf", "-inf", "1e400", "1e-320", "1e308", "-1", "0", "1", "0.5", "2", "5_000", "0x10", "\u0969",
    "9" * 5_000, "x", LONG, "\udc80", "a\x00b", "\x1b[2Jx", "--", "-", "/", ".", "..", "~", "/dev/null", "absent",
    "../escape", "methods", "*", "<good>", "<good>/config.yaml", "<good>/tables", "<empty>",
)  # fmt: skip
"""what a user may type where a number, a name or a folder is due"""
_POWER = (
    "difference", "annotations", "flip-rate", "design-effect", "per-cluster", "icc", "variance", "power", "significance"
)  # fmt: skip
WORD_COMMANDS = (
    "list <word>",
    "list <word> --json",
    "status <word>",
    "report <word>",
    "report <good> --examples <word>",
    "compare <good> <word> --out out.html",
    "compare <word> <good> --out out.html",
    "config <word>",
    "run pocket --seed <word> --dry-run",
    *(f"power --{name} <word>" for name in _POWER),
    *(f"power --difference 5 --{name} <word>" for name in _POWER[1:]),
    *(f"power --annotations 100 --per-cluster 5 --paired --{name} <word>" for name in _POWER[2:]),
)


@dataclass(frozen=True)
class WordCase:
    """One command line with one odd word."""

    command: str
    word: int
    """which of :data:`WORDS`"""
    run: Path
    """a good run folder"""

    def __str__(self) -> str:
        return f"{self.command}: {WORDS[self.word][:20]!r}"

    def arguments(self, folder: Path) -> list[str]:
        good, empty = folder / "good", folder / "empty"
        empty.mkdir()
        shutil.copytree(self.run, good)
        word = WORDS[self.word].replace("<good>", str(good)).replace("<empty>", str(empty))
        places = {"<word>": word, "<good>": good, "out.html": folder / "out" / "out.html"}
        return [str(places.get(part, part)) for part in self.command.split()]


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


def cases(run: Path) -> Iterator[Case | RunCase | WordCase]:
    """All cases, thousands; those of run folders are made from a good one."""
    yield from _of_files()
    for command, files in RUN_COMMANDS.items():
        for file in files:
            for place, wrongs in _spots(run / file):
                for wrong in wrongs:
                    yield RunCase(command, file, place, wrong, run)
    for command in WORD_COMMANDS:
        for k in range(len(WORDS)):
            yield WordCase(command, k, run)


def _of_files() -> Iterator[Case]:
    for command, line in COMMANDS.items():
        for word in line.split():
            if not word.startswith("<"):
                continue
            name = word[1:-1]
            for suffix in FORMATS if name != "row" else (".csv",):
                columns = list(TABLES[name][0])
                for column in columns:
                    for wrong in _OF_A_COLUMN:
                        yield Case(command, name, suffix, column, wrong)


def order(case: Case | RunCase | WordCase) -> bytes:
    """A place in an order that is drawn once and for all."""
    return hashlib.blake2b(str(case).encode("utf-8", "surrogatepass"), digest_size=8).digest()
