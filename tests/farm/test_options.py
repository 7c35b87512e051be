"""The options of a command are said once: a dataclass gives its flags, its arguments in Python and its checks."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

import farm
from eval.face.options import (
    CompareOptions,
    EvaluateOptions,
    LeaderboardOptions,
    PowerOptions,
    ReportOptions,
    ValidateOptions,
)
from farm.asking.limits import AskingOptions, Limits
from farm.base.bounds import Count
from farm.base.errors import OptionError, UserError
from farm.face.command_options import CleanOptions, ConfigOptions, ConvertOptions, StatusOptions
from farm.face.options import PYTHON_ONLY, Flag, Listed, Repeated, command, made, takes
from farm.face.run_options import RunOptions
from reference_methods.face.options import GameOptions


@dataclass(frozen=True, kw_only=True)
class Base:
    seed: int = 0
    """The seed."""


@dataclass(frozen=True, kw_only=True)
class Options(Base):
    place: Annotated[Any, Flag(argument=True, metavar="FILE", kind=Path)] = field(kw_only=False)
    """Where it is."""
    how_often: Count | None = None
    """How often,
    in all."""
    changes: Annotated[Repeated, Flag("--set", metavar="A=B")] = ()
    """Change it."""
    names: Annotated[tuple[str, ...], Listed(), Flag(kind=str)] = ()
    """With commas."""
    ties: Literal["half", "drop"] = "half"
    """What a tie is."""
    quick: bool = False
    """Be quick."""
    table: Annotated[Any, PYTHON_ONLY] = None
    """Not on the command line."""


def core(options: Options) -> Options:
    """Do it."""
    if options.quick and options.changes:
        raise OptionError("`quick` leaves no time for `changes`; the column `seed_of` is none of `Options`")
    return options


def invoke(*words: str) -> tuple[Any, list[Options]]:
    seen: list[Options] = []

    @command(Options)
    def do(options: Options, loud: Annotated[bool, typer.Option("--loud", help="Shout.")] = False) -> None:
        """Do it."""
        seen.append(core(options))
        print("LOUD" if loud else "quiet")

    app = typer.Typer(add_completion=False)
    app.command()(do)
    return CliRunner().invoke(app, list(words)), seen


def test_a_command_line_gives_the_options() -> None:
    words = (
        "a/b.json",
        "--how-often",
        "3",
        "--set",
        "a=1",
        "--set",
        "b=2",
        "--names",
        "x, y",
        "--quick",
        "--seed",
        "4",
    )
    done, seen = invoke(*words[:3], *words[7:])
    assert done.exit_code == 0 and done.output == "quiet\n"
    assert seen == [Options(Path("a/b.json"), how_often=3, names=("x", "y"), quick=True, seed=4)]
    done, seen = invoke(*words[:7], "--loud")
    assert done.output == "LOUD\n" and seen == [Options(Path("a/b.json"), how_often=3, changes=("a=1", "b=2"))]
    assert invoke("x")[1] == [Options(Path("x"))]


def test_help_is_the_docstrings_of_the_fields_own_ones_first() -> None:
    flags = re.findall(r"--[\w-]+", invoke("--help")[0].output)
    assert flags == ["--how-often", "--set", "--names", "--ties", "--quick", "--seed", "--loud", "--help"]
    said = invoke("--help")[0].output
    assert "How often, in all." in said and "x>=1" in said and "[default: half]" in said and "table" not in said


@pytest.mark.parametrize(
    ("words", "keywords", "said"),
    [
        ("--ties haf", {"ties": "haf"}, "{ties} = 'haf' is wrong: did you mean `half`?"),
        ("--quick --set a=1", {"quick": True, "changes": "a=1"},
         "{quick} leaves no time for {changes}; the column `seed_of` is none of `Options`"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_flag_or_the_argument(words: str, keywords: dict[str, Any], said: str) -> None:
    assert str(invoke("x", *words.split())[0].exception) == said.format(ties="--ties", quick="--quick", changes="--set")
    with pytest.raises(UserError) as caught:
        takes(Options)(core)("x", **keywords)
    assert str(caught.value) == said.format(ties="`ties`", quick="`quick`", changes="`changes`")


def test_python_checks_and_converts() -> None:
    do = takes(Options)(core)
    assert do("x", names="a,b", changes="a=1", how_often=2) == Options(
        "x", names=("a", "b"), changes=("a=1",), how_often=2
    )
    with pytest.raises(UserError, match="`how_often` = 0 is wrong: input should be greater than or equal to 1"):
        do("x", how_often=0)
    with pytest.raises(TypeError, match="how_oft"):
        do("x", how_oft=1)  # type: ignore[call-arg]
    assert inspect.signature(do) == inspect.signature(Options)
    assert "how_often: How often, in all." in (do.__doc__ or "")


ALL = {
    "run": RunOptions, "dry_run": RunOptions, "evaluate": EvaluateOptions, "leaderboard": LeaderboardOptions,
    "validate": ValidateOptions, "power": PowerOptions, "compare": CompareOptions, "game": GameOptions,
    "report": ReportOptions, "status": StatusOptions, "configuration": ConfigOptions, "convert": ConvertOptions,
    "clean": CleanOptions,
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_the_function_of_a_command_takes_its_options(name: str) -> None:
    function = getattr(farm, name)
    assert list(inspect.signature(function).parameters) == list(inspect.signature(ALL[name]).parameters)
    for option in fields(ALL[name]):
        assert f"\n    {option.name}: " in function.__doc__


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flip_rate": 0.5}, "`flip_rate` = 0.5"),
        ({"design_effect": 0.5}, "`design_effect` = 0.5"),
        ({"per_cluster": 0.5}, "`per_cluster` = 0.5"),
        ({"icc": 1.5}, "`icc` = 1.5"),
        ({"power": 1.0}, "`power` = 1.0"),
        ({"significance": 0.0}, "`significance` = 0.0"),
        ({"annotations": 1}, "`annotations` = 1"),
    ],
)
def test_a_plan_keeps_the_bounds_of_its_options(given: dict[str, float], said: str) -> None:
    """They were checked where the numbers are used, without the option's name."""
    with pytest.raises(OptionError, match=said):
        made(PowerOptions, given)


def test_limits_of_a_run_are_its_options() -> None:
    assert made(RunOptions, {"experiment": "x", "budget": 2}).limits == Limits(budget=2.0)
    assert {f.name for f in fields(AskingOptions)} < {f.name for f in fields(Limits)}
    with pytest.raises(OptionError, match="`budget` = -1"):
        made(RunOptions, {"experiment": "x", "budget": -1})


def test_tables_are_judged_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They were written into a temporary folder once, and read back."""
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.TemporaryDirectory", None)
    base = [{"instruction": f"q {i}", "output": "one word"} for i in range(12)]
    mine = [{"instruction": f"q {i}", "output": "words " * (1 + i % 4)} for i in range(12)]
    found = farm.evaluate(mine, judge="person", baseline=base, fresh=True)
    assert found.methods["method"].tolist() == ["own"] and found.baseline == "base"
    with pytest.raises(UserError, match="the outputs: row 2: this instruction was answered in an earlier row"):
        farm.evaluate([mine[0], mine[0]], judge="person", baseline=base, fresh=True)
