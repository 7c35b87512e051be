"""A judge's bias by editing: planted biases are read, merit is subtracted, and regression reads something else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from eval.face.api import bias
from eval.judges.edits import EDITS
from eval.judges.interventions import chance, effect, slope
from eval.judges.planted import Planted
from farm import cli
from farm.base.errors import UserError
from farm.tables.formats import write_table


def test_the_known_answer_regression_is_off_by_what_goes_along_and_the_edit_is_not() -> None:
    """[num] s = .6 q + .8 noise, J = q + b s: by regression b + .6, by editing b."""
    draw = np.random.default_rng(1)
    q, noise = draw.normal(size=(2, 200_000))
    s = 0.6 * q + 0.8 * noise
    for b in (0.0, 0.5, 1.0):
        assert slope(q + b * s, s) == pytest.approx(b + 0.6, abs=0.01)
        found = effect(q + b * s, q + b * (s + 1))
        assert (found.value, found.low, found.high) == pytest.approx((b, b, b))


@pytest.mark.parametrize("counts", ["praise", "list", "length"])
def test_planted_biases_are_read_by_edits(counts: Any) -> None:
    """[trend] at a small size, and without noise exactly."""
    exact = Planted(counts=counts, bias=0.5, texts=60, noise=0.0).tables(1)
    readings = exact["readings"].set_index("method")["off"]
    assert readings["edit"] == pytest.approx(0, abs=1e-9)
    assert readings["regression"] > 0.02 and readings["raw"] > 0.05
    noisy = Planted(counts=counts, bias=0.0, texts=60).tables(1)["effects"]
    none = noisy[noisy["method"] == "edit"]["effect"]
    assert abs(none.mean()) < 3 * 1.5 / np.sqrt(60)
    assert noisy.equals(Planted(counts=counts, bias=0.0, texts=60).tables(1)["effects"])


def test_the_chance_is_the_judges_own_probability_where_there_is_one() -> None:
    rows = pd.DataFrame({"preference": [2.0, 1.0, None, 1.5], "p_first": [0.2, None, 0.4, 0.5]})
    np.testing.assert_allclose(chance(rows), [0.8, 0.0, np.nan, 0.5])
    np.testing.assert_allclose(chance(rows[["preference"]]), [1.0, 0.0, np.nan, 0.5])


def test_edits_keep_the_words_and_leave_alone_what_has_nothing_to_edit() -> None:
    text = "Figs are sweet. Plums are not! Are they?"
    listed = EDITS["list"].of(text)
    assert listed == "- Figs are sweet.\n- Plums are not!\n- Are they?"
    assert EDITS["list"].of(listed) == listed and EDITS["list"].of("One sentence.") == "One sentence."
    assert EDITS["plain"].of("# Fruit\n1. **figs**\n* plums") == "Fruit\nfigs\nplums"
    assert EDITS["plain"].of(text) == text
    assert EDITS["padding"].of(text).startswith(text) and EDITS["praise"].of(text).endswith(text)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    draw = np.random.default_rng(2)
    rows = {name: [] for name in ("own", "base")}  # type: ignore[var-annotated]
    for i in range(60):
        for name, table in rows.items():
            n = int(draw.integers(1, 5))
            said = " ".join(f"The fruit number {draw.integers(100)} is sweet and round." for _ in range(n))
            table.append({"instruction": f"Name fruit {i}.", "output": said, "generator": name})
    out = {name: tmp_path / f"{name}.json" for name in rows}
    for name, path in out.items():
        write_table(pd.DataFrame(rows[name]), path)
    return out


def effects(found: Any) -> dict[str, float]:
    return dict(zip(found.effects["edit"], found.effects["effect"], strict=True))


def test_biases_of_judges_are_what_was_given_to_them(files: dict[str, Path]) -> None:
    given = {"outputs": files["own"], "baseline": files["base"]}
    plain = effects(bias(**given, judge="person", unbiased="person"))
    assert set(plain) == {"padding", "praise", "list", "plain", "order"}
    assert np.isnan(plain.pop("plain"))  # no text has any marks
    assert all(value == 0 for value in plain.values())  # who is held against themselves
    listing = effects(bias(**given, judge="person", unbiased="person", judge_settings=("list_bias=2",)))
    assert listing["list"] > 0.15 and abs(listing["padding"]) < 1e-9 and listing["order"] == 0
    second = effects(bias(**given, judge="person", judge_settings=("position_bias=-1",), edits="order"))
    assert second == {"order": pytest.approx(0.4, abs=0.15)}


def test_a_judge_that_wants_length_is_told_by_padding_alone(files: dict[str, Path]) -> None:
    """A language model (a script): what the command asks goes the way of every judge, and is asked once."""
    found = bias(files["own"], judge="mock_judge")
    seen = found.effects.set_index("edit")
    assert seen.loc["padding", "effect"] == 0.5 and seen.loc["praise", "effect"] == 0.5
    assert seen.loc["padding", "n"] == 60 and seen.loc["plain", "n"] == 0
    assert np.isnan(seen.loc["plain", "effect"]) and "order" not in seen.index
    done = CliRunner().invoke(
        cli._application(), ["bias", str(files["own"]), "--judge", "mock_judge", "--json"], catch_exceptions=False
    )
    assert json.loads(done.stdout) == json.loads(found.to_json())


def test_mistakes_are_one_sentence(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="whose bias"):
        bias(files["own"])
    with pytest.raises(UserError, match="did you mean `padding`"):
        bias(files["own"], judge="person", edits="paddin")
    with pytest.raises(UserError, match="exchanges two outputs"):
        bias(files["own"], judge="person", edits="order")
    with pytest.raises(UserError, match="is the baseline itself"):
        bias(files["own"], judge="person", baseline=files["own"])
