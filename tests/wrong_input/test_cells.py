"""Every command with one cell, one column or one file wrong: it works, or it is one sentence and exit status 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

Farm = Callable[..., tuple[int, str, str]]
EACH, ALL = 4, 6_000
SLOW = "calibrate"
"""the command that takes seconds for good votes"""
COMMANDS = {
    "annotate", "bias", "boards", "calibrate", "clean", "compare", "config", "convert", "drift", "evaluate", "game",
    "leaderboard", "list", "papers", "power", "principles", "push", "report", "run", "status", "validate",
}  # fmt: skip


def one_sentence(said: tuple[int, str, str]) -> str:
    """What is wrong with an answer to wrong input; often nothing."""
    status, shown, error = said
    lines = error.strip().splitlines()
    if status == 0:
        return ""
    if status != 2:
        return f"exit status {status}: {lines[-1:]}"
    if len(lines) != 1 or not lines[0].startswith("farm: ") or shown:
        return f"not one sentence: {lines} {shown[:80]}"
    return "" if len(lines[0]) < 300 else f"{len(lines[0])} characters"


def found(cases: Iterable[Any], farm: Farm, folder: Path) -> list[str]:
    """What goes wrong in these cases."""
    wrong = []
    for number, case in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        said = farm(*case.arguments(place))
        if complaint := one_sentence(said):
            wrong.append(f"{case}: {complaint}")
        if said[0] and (place / "out").exists() and any((place / "out").iterdir()):
            wrong.append(f"{case}: something was written")
    return wrong


def test_the_files_are_good_before_they_are_spoilt(
    enumerated: ModuleType, run: Path, farm: Farm, tmp_path: Path
) -> None:
    lines = [enumerated.Case(name, "", ".json", "", "") for name in enumerated.COMMANDS if name != SLOW]
    one = enumerated.WORDS.index("1")
    lines += [enumerated.WordCase(name.replace("<run>", "<good>"), one, run) for name in enumerated.RUN_COMMANDS]
    lines += [enumerated.Case(*named, "", "", "dropped") for named in enumerated.DOCUMENT_COMMANDS.items()]
    for number, case in enumerate(lines):
        (tmp_path / str(number)).mkdir()
        status, _, error = farm(*case.arguments(tmp_path / str(number)))
        assert status == 0, (case, error)


def test_a_wrong_cell_is_one_sentence(enumerated: ModuleType, run: Path, farm: Farm, tmp_path: Path) -> None:
    cases = enumerated.few(run, EACH, without=SLOW)
    assert {case.command.split()[0] for case in cases} == COMMANDS - {SLOW}
    assert found(cases, farm, tmp_path) == []


def test_every_command_is_among_the_cases(application: typer.Typer) -> None:
    named = {info.name or info.callback.__name__ for info in application.registered_commands if info.callback}
    assert named == COMMANDS | {"doctor"}  # which takes nothing


@pytest.mark.parametrize(
    ("place", "wrong"),
    [("stages", "list"), ("at_once", "zero"), ("started", "null"), ("artifacts", "dropped"), ("name", "object"),
     ("stages.0.folder", "empty"), ("stages.0.state", "list"), ("stages.0.estimate", "word"), ("", "cut")],
)  # fmt: skip
def test_a_status_that_was_edited_is_one_sentence(
    enumerated: ModuleType, run: Path, farm: Farm, tmp_path: Path, place: str, wrong: str
) -> None:
    """Failed for the first four and the estimate: no value of the file was looked at before it was computed with."""
    case = enumerated.RunCase("status <run>", "status.json", place, wrong, run)
    said = farm(*case.arguments(tmp_path))
    assert said[0] == 2 and one_sentence(said) == "" and "status.json" in said[2]


FOUND = [
    "convert helpsteer: helpsteer.parquet complexity whole deep list",
    "evaluate human: annotations.jsonl output_1 null",
    "annotate: texts.csv output_2 no rows",
    "convert conversational: conversational.jsonl rejected.0.content whole surrogate",
    "convert ultrafeedback: ultrafeedback.json completions.0.annotations.honesty.Rating whole huge",
    "validate pairs: texts.parquet instruction whole surrogate",
    "principles: texts.jsonl instruction float",
    "annotate outputs: several.jsonl score deep list",
    "annotate outputs: several.parquet score no rows",
    "evaluate judge: outputs.csv generator whole empty",
    "calibrate row: row.csv Proba. prefer 1 true",
    "leaderboard difficulty: difficulty.csv instruction empty",
    "validate: judge.parquet output_1 whole surrogate",
    "push <run> me/set --json: costs.json annotations.0.role surrogate",
]


def test_what_the_thousands_found(enumerated: ModuleType, run: Path, farm: Farm, tmp_path: Path) -> None:
    cases = {str(case): case for case in enumerated.cases(run)}
    assert found([cases[name] for name in FOUND], farm, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(10))
def test_a_wrong_cell_is_one_sentence_thousands(
    enumerated: ModuleType, run: Path, farm: Farm, tmp_path: Path, part: int
) -> None:
    cases = sorted(enumerated.cases(run), key=enumerated.order)[:ALL]
    assert found(cases[part::10], farm, tmp_path) == []
