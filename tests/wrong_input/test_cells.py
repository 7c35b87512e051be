"""Every command with one cell, one column or one file wrong: it works, or it is one sentence and exit status 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Farm = Callable[..., tuple[int, str, str]]
QUICK, ALL = 120, 6_000
SLOW = "calibrate"
"""the command that takes seconds for good votes"""


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


def found(enumerated: ModuleType, run: Path, farm: Farm, folder: Path, first: int, last: int) -> list[str]:
    """What goes wrong in the cases from one place of the drawn order to another."""
    wrong = []
    quick = [case for case in enumerated.cases(run) if case.command != SLOW or last > QUICK]
    for number, case in enumerate(sorted(quick, key=enumerated.order)[first:last]):
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
    for number, case in enumerate(lines):
        (tmp_path / str(number)).mkdir()
        status, _, error = farm(*case.arguments(tmp_path / str(number)))
        assert status == 0, (case, error)


def test_a_wrong_cell_is_one_sentence(enumerated: ModuleType, run: Path, farm: Farm, tmp_path: Path) -> None:
    assert found(enumerated, run, farm, tmp_path, 0, QUICK) == []


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


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(10))
def test_a_wrong_cell_is_one_sentence_thousands(
    enumerated: ModuleType, run: Path, farm: Farm, tmp_path: Path, part: int
) -> None:
    size = (ALL - QUICK) // 10
    assert found(enumerated, run, farm, tmp_path, QUICK + part * size, QUICK + (part + 1) * size) == []
