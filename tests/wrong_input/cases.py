"""Wrong inputs by enumeration: each command with good files, and one thing wrong in one of them.

A case is a command line with one file replaced: one cell, one column, or the whole file; or with one odd word. What a
cell may hold is :data:`CELLS`; :func:`cases` makes the product with all commands, columns and formats.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.wrong_input.good_files import DOCUMENTS, SETS, TABLES

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


SET_TO = {
    "preferences": " --to labels",
    "hh": " --to conversational",
    "arena_hard": " --to battles",
    "ultrafeedback": " --to annotations",
    "helpsteer": " --to ultrafeedback",
    "labels": " --to outputs",
    "messages": " --to completions",
}
"""to another format than its own"""
COMMANDS: dict[str, str] = {
    "leaderboard": "leaderboard <annotations> --out out.csv",
    "leaderboard difficulty": "leaderboard <annotations> --difficulty <difficulty> --out out.json",
    "leaderboard published": "leaderboard <annotations> --published <published>",
    "leaderboard battles": "leaderboard <battles> --cluster id --rounds 5 --out out.parquet",
    "leaderboard elo": "leaderboard <battles> --metrics elo --json",
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
    "drift": "drift <anchors> --annotators training --out out.csv",
    "push": "push <annotations> me/set --json",
    "push ratings": "push <ratings> me/set",
    "convert annotations": "convert <annotations> out.jsonl --to preferences",
    "convert battles": "convert <battles> out.parquet --map winner=winner",
    **{f"convert {name}": f"convert <{name}> out.jsonl{SET_TO.get(name, '')}" for name in SETS},
}
FORMATS = (".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Case:
    """One command line with one wrong file: a table, or a document in which one value is wrong."""

    command: str
    """a key of :data:`COMMANDS`, or the line itself"""
    file: str
    """which of its files is wrong"""
    suffix: str
    """of a table"""
    column: str
    """or the keys on the way to a value of a document, with dots between them"""
    wrong: str
    """a key of CELLS, "whole " and one, or a name of :data:`SHAPES`"""

    def __str__(self) -> str:
        file = "" if self.file in DOCUMENTS else f"{self.file}{self.suffix} "
        return f"{self.command}: {file}{self.column} {self.wrong}"

    def arguments(self, folder: Path) -> list[str]:
        """The command line; its files are written into ``folder``."""
        line = []
        for word in COMMANDS.get(self.command, self.command).split():
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
        if self.file in DOCUMENTS:
            return spoilt_document(DOCUMENTS[self.file], self.column, self.wrong)
        return spoilt(TABLES[self.file], self.column, self.wrong, self.suffix)


def spoilt(table: list[dict[str, Any]], column: str, wrong: str, suffix: str) -> bytes:
    """A file of these rows with one thing wrong: a cell, a column (``whole ...``), or one of :data:`SHAPES`."""
    rows = copy.deepcopy(table)
    if wrong in SHAPES:
        return SHAPES[wrong](rows, column, suffix)
    cell = wrong.removeprefix("whole ")
    for row in rows if cell != wrong else rows[1:2] or rows:
        _put(row, column, CELLS[cell])
    return written(rows, suffix)


def _put(found: Any, place: str, value: Any) -> None:
    """Set what stands at a place, the keys on the way to it with dots between them; a name may have dots itself."""
    *way, last = [place] if place in found else place.split(".")
    for key in way:
        found = found[int(key) if isinstance(found, list) else key]
    found[last] = value


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
    "push <run> me/set --json": (
        "config.yaml",
        "environment.json",
        "costs.json",
        "leaderboard.json",
        "tables/preferences.parquet",
        "tables/outputs.parquet",
    ),
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
        return spoilt_document(found, self.place, self.wrong)


def spoilt_document(document: dict[str, Any], place: str, wrong: str) -> bytes:
    """JSON, which is YAML too, with one value wrong, or cut, or one bit of it."""
    found = copy.deepcopy(document)
    if wrong in ("cut", "one bit"):
        return SHAPES[wrong]([{"file": found}], place, ".jsonl")
    if wrong != "dropped":
        _put(found, place, CELLS[wrong])
    elif place:
        *way, last = place.split(".")
        holder = found
        for key in way:
            holder = holder[int(key) if isinstance(holder, list) else key]
        del holder[last]
    return json.dumps(found).encode()


DOCUMENT_COMMANDS = {
    "config <experiment.yaml>": "experiment.yaml",
    "run <experiment.yaml> --dry-run": "experiment.yaml",
    "run <paper.yaml> --dry-run": "paper.yaml",
    "annotate <texts> --annotators <annotator.yaml> --out out.csv": "annotator.yaml",
    "game <game.json> --method nash_md --iterations 2": "game.json",
    "game <game.json> --method nash_md --iterations 2 --json": "game.json",
}
"""command line -> its document, in which something is wrong"""


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
    yield from _document_spots(found)


def _document_spots(found: dict[str, Any]) -> Iterator[tuple[str, Iterable[str]]]:
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
    "../escape", "methods", "*", "<good>", "<good>/config.yaml", "<good>/tables", "<empty>", "<loop>",
)  # fmt: skip
"""what a user may type where a number, a name or a folder is due"""
_POWER = (
    "difference", "annotations", "flip-rate", "design-effect", "per-cluster", "icc", "variance", "power", "significance"
)  # fmt: skip
_PRINCIPLES = ("n", "per-pair", "clusters", "least", "held-out", "seed", "annotator", "judge", "out")
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
    "run papers/<word> --dry-run",
    "papers <word>",
    "papers --json <word>",
    "boards <word> --offline",
    "boards <word> --offline --json",
    "clean --days <word> --json",
    "push <word> me/set",
    "push <good> <word>",
    "push <good> me/set --license <word>",
    "convert <word> out.jsonl",
    "convert <annotations> out.jsonl --to <word>",
    "convert <annotations> out.jsonl --map preference=<word>",
    "convert <annotations> out.jsonl --map <word>",
    "convert <annotations> <word>",
    "leaderboard <word>",
    "evaluate <word>",
    "validate <word>",
    "annotate <word> --annotators training --out out.csv",
    "drift <word> --annotators training",
    "drift <anchors> --annotators <word>",
    "drift <anchors> --annotators training --replicate <word>",
    "drift <anchors> --annotators training --set rate=<word>",
    "principles <word>",
    "principles <verdicts> --pairs <texts> --rule <word>",
    *(f"principles <verdicts> --pairs <texts> --{name} <word>" for name in _PRINCIPLES),
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
        (loop := folder / "loop").symlink_to(loop)
        shutil.copytree(self.run, good)
        word = WORDS[self.word].replace("<good>", str(good)).replace("<empty>", str(empty)).replace("<loop>", str(loop))
        places = {"<good>": good, **{name: folder / "out" / name for name in ("out.html", "out.jsonl", "out.csv")}}
        for name in TABLES:
            if f"<{name}>" in self.command:
                (path := folder / f"{name}.json").write_bytes(written(TABLES[name], ".json"))
                places[f"<{name}>"] = path
        return [str(places[part]) if part in places else part.replace("<word>", word) for part in self.command.split()]


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


AnyCase = Case | RunCase | WordCase


def cases(run: Path) -> Iterator[AnyCase]:
    """All cases, thousands; those of run folders are made from a good one."""
    yield from _of_files()
    for command, file in DOCUMENT_COMMANDS.items():
        for place, wrongs in _document_spots(DOCUMENTS[file]):
            for wrong in wrongs:
                yield Case(command, file, "", place, wrong)
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
                for column in _ways(TABLES[name][0]):
                    for wrong in _OF_A_COLUMN:
                        yield Case(command, name, suffix, column, wrong)


def few(run: Path, of_each: int, without: str) -> list[AnyCase]:
    """The first cases of every command but one, in the drawn order."""
    seen: Counter[str] = Counter()
    out = []
    for case in sorted(cases(run), key=order):
        name = case.command.split()[0]
        if name != without and seen[name] < of_each:
            seen[name] += 1
            out.append(case)
    return out


def order(case: AnyCase) -> bytes:
    """A place in an order that is drawn once and for all."""
    return hashlib.blake2b(str(case).encode("utf-8", "surrogatepass"), digest_size=8).digest()
