"""A judge asked again about its anchors: the same one is seldom called changed, another one is found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from annotators.face import commands
from annotators.face.options import DriftOptions
from annotators.runs.drift import Drift, compare, drifted
from farm.base.errors import UserError
from farm.tables.formats import read_annotations, write_table
from tests.annotators.llm.cases import make_pairs
from tests.annotators.llm.fault_server import FaultServer

Farm = Callable[..., str]


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Farm:
    app = typer.Typer()
    commands.register(app)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def noisy(generator: np.random.Generator, chance: np.ndarray, count: int) -> np.ndarray:
    """Answers [n, count] of a judge that prefers the second output with these chances."""
    return np.where(generator.random((len(chance), count)) < chance[:, None], 2.0, 1.0)


def test_the_same_noisy_judge_is_seldom_called_changed_and_another_one_is() -> None:
    generator = np.random.Generator(np.random.Philox(5))
    n, runs = 80, 30
    clusters = pd.Series(np.arange(n)).astype(str)
    same = other = 0
    for _ in range(runs):
        chance = generator.beta(0.4, 0.4, n)
        then = noisy(generator, chance, 2)
        same += compare(then, noisy(generator, chance, 1)[:, 0], clusters).changed
        other += compare(then, noisy(generator, 1 - chance, 1)[:, 0], clusters).changed
    assert same <= 0.05 * runs + 3 * np.sqrt(0.05 * 0.95 * runs)
    assert other >= 0.95 * runs


def test_a_change_of_the_size_that_is_told_is_seen_four_times_in_five() -> None:
    generator = np.random.Generator(np.random.Philox(6))
    n, runs, clusters = 50, 300, pd.Series(np.arange(50))

    def asked(shift: float) -> Drift:
        return compare(np.full((n, 1), 1.5), 1.5 + np.clip(generator.normal(shift, 0.15, n), -0.5, 0.5), clusters)

    told = re.search(
        r"no change is seen; one of (0\.\d+) would have been seen four times in five", asked(0).sentences()
    )
    assert told is not None
    seen = np.mean([asked(float(told[1])).changed for _ in range(runs)])
    assert abs(seen - 0.8) < 0.1  # the error is estimated, and the size rounded: 3.6 % each, and 2.3 % for the runs
    few = compare(np.full((3, 1), 1.5), np.array([1.0, 2.0, 1.5]), clusters[:3]).sentences()
    assert "so few anchors" in few and "one of" not in few


def test_by_hand() -> None:
    then = np.array([[1.0, 1.0], [2.0, 1.0], [2.0, 2.0], [1.0, np.nan]])
    found = compare(then, np.array([2.0, 1.0, 2.0, 1.0]), pd.Series(list("abcd")))
    assert (found.anchors, found.left_out) == (3, 1)
    assert found.now.value == pytest.approx((0 + 0.5 + 1) / 3)
    assert found.then is not None and found.then.value == pytest.approx(2 / 3)
    assert found.change is not None and found.change.value == pytest.approx(0.5 - 2 / 3)
    assert found.shift.value == pytest.approx((1 - 0.5 + 0) / 3)
    once = compare(then[:, :1], then[:, 0], pd.Series(list("abcd")))
    assert once.then is None and not once.changed and once.now.value == 1.0
    with pytest.raises(UserError, match="not one anchor"):
        compare(then[:1] * np.nan, then[:1, 0], pd.Series(["a"]))


def test_a_server_that_changes_its_model_is_found_out(farm: Farm, tmp_path: Path) -> None:
    write_table(make_pairs(16), tmp_path / "pairs.json")
    anchors, again = tmp_path / "anchors.json", tmp_path / "again.json"
    with FaultServer() as server:
        judge: list[Any] = ["--annotators", "openai_greedy", "--set", f"base_url={server.url}/v1"]
        farm("annotate", tmp_path / "pairs.json", *judge, "--replicates", 2, "--out", anchors)
        asked = len(server.seen)
        same = farm("drift", anchors, *judge, "--out", again)
        assert len(server.seen) == asked + 16, "nothing of it comes from the store"
        assert "no change is seen" in same and "1.000" in same
        shown = {(body["messages"][-1]["content"]) for body in server.seen[:asked]}
        assert {(body["messages"][-1]["content"]) for body in server.seen[asked:]} == shown, "in the same order"
        server.script = "shorter"
        found = json.loads(farm("drift", again, *judge, "--json"))
        assert found["changed"] and found["now"]["value"] == 0.0 and found["then"]["value"] == 1.0
        assert len(server.seen) == asked + 32
        farm("drift", again, *judge, "--json")
        assert len(server.seen) == asked + 32, "the same call goes on where it was"
    table = read_annotations(again)
    assert table.groupby("replicate").size().to_dict() == {0: 16, 1: 16, 2: 16}


def test_anchors_are_the_verdicts_of_one_run(farm: Farm, tmp_path: Path) -> None:
    pairs = make_pairs(4).assign(preference=1.0, seed=[0, 0, 1, 1])
    write_table(pairs, tmp_path / "two.json")
    with pytest.raises(UserError, match="one `seed`, these 2"):
        farm("drift", tmp_path / "two.json", "--annotators", "mock_judge")
    write_table(pd.concat([pairs, pairs]).assign(seed=0), tmp_path / "twice.json")
    with pytest.raises(UserError, match="a pair twice"):
        farm("drift", tmp_path / "twice.json", "--annotators", "mock_judge")
    write_table(pairs.assign(seed=0), tmp_path / "once.json")
    with pytest.raises(UserError, match="--replicate 0 is there already"):
        farm("drift", tmp_path / "once.json", "--annotators", "mock_judge", "--replicate", 0)


def test_anchors_of_one_instruction_show_nothing() -> None:
    said = compare(np.ones((3, 2)), np.array([1.0, 2.0, 2.0]), pd.Series(list("aaa"))).sentences()
    assert "of one instruction alone" in said and "would have been" not in said


@pytest.mark.parametrize(
    ("column", "wrong"), [("seed", "x"), ("replicate", 0.5), ("shown_first", [[]]), ("seed", True)]
)
def test_a_number_of_an_anchor_that_is_none_is_refused(column: str, wrong: object) -> None:
    """Ended in a traceback."""
    row = {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1, "shown_first": 1, column: wrong}
    with pytest.raises(UserError, match=f"row 1: `{column}` is .*, not a whole number"):
        drifted(DriftOptions(verdicts=[row]), "training")
