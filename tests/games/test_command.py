"""`farm game`: its JSON, its refusals, its pictures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farm.base.errors import UserError
from farm.face.options import made
from reference_methods.face import game_command, game_tables
from reference_methods.face.options import GameOptions
from reference_methods.parts.games.picture import Course, draw, svg, thinned

GAME = {"preferences": [[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]], "reference": [0.5, 0.3, 0.2]}


def written(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "game.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def run(path: Path, method: str = "egpo", **changed: Any) -> None:
    given: dict[str, Any] = {"preferences": path, "method": method, "iterations": 30, "as_json": True} | changed
    as_json = given.pop("as_json")
    game_tables.run(made(GameOptions, given), as_json)


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(written(tmp_path, GAME))
    found = json.loads(capsys.readouterr().out)
    required = {"method", "policy", "average_policy", "equilibrium", "duality_gap", "kl_to_equilibrium", "history"}
    assert required <= set(found)
    np.testing.assert_allclose(found["policy"], (0.294475, 0.309797, 0.395728), atol=5e-7)
    np.testing.assert_allclose(found["equilibrium"], found["policy"], atol=1e-9)
    assert found["duality_gap"] < 1e-8 and len(found["history"]) == 31
    assert found["history"][0]["duality_gap"] == pytest.approx(0.0762, abs=5e-5)
    assert found["history"][-1]["duality_gap"] == found["duality_gap"]


@pytest.mark.parametrize("method", [*game_command.METHODS, *game_command.BASELINES])
def test_every_method_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
    for samples in ("exact", "5"):
        run(written(tmp_path, GAME), method, iterations=3, samples=samples)
        found = json.loads(capsys.readouterr().out)
        assert sum(found["policy"]) == pytest.approx(1) and sum(found["average_policy"]) == pytest.approx(1)
        baseline = method in game_command.BASELINES
        assert (found["queries"] > 0) == (samples == "5" and not baseline)


def test_methods_without_an_anchor_seek_the_plain_winner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(written(tmp_path, GAME), "spo", iterations=2000)
    found = json.loads(capsys.readouterr().out)
    assert found["beta"] == 0
    np.testing.assert_allclose(found["equilibrium"], (2 / 9, 4 / 9, 3 / 9), atol=1e-9)
    np.testing.assert_allclose(found["average_policy"], found["equilibrium"], atol=0.03)
    assert len(found["history"]) <= 1001 and found["history"][-1]["iteration"] == 2000


def test_all_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(written(tmp_path, GAME), "all", iterations=60)
    found = {row["method"]: row for row in json.loads(capsys.readouterr().out)["methods"]}
    assert set(found) == {*game_command.METHODS, *game_command.BASELINES}
    assert found["reward_model_rlhf"]["duality_gap"] == pytest.approx(0.391, abs=5e-4)
    assert found["one_step"]["duality_gap"] == pytest.approx(0.0995, abs=5e-5)
    assert (found["egpo"]["iterations_to_1e-8"], found["nash_mp"]["iterations_to_1e-8"]) == (10, 35)
    assert found["inpo"]["iterations_to_1e-8"] == 58
    run(written(tmp_path, GAME), "all", iterations=3, as_json=False)
    assert "reward_model_rlhf" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"preferences": [[0.5, 0.8], [0.3, 0.5]]}, "row 1, column 2"),
        ({"preferences": [[0.5, 0.8], [0.2, 0.6]]}, "row 2, column 2"),
        ({"preferences": [[0.5, 1.2], [-0.2, 0.5]]}, "row 1, column 2"),
        ({"preferences": [[0.5, "a"], [0.2, 0.5]]}, "row 1, column 2"),
        ({"preferences": [[0.5, 0.8], [0.2]]}, "row 2 has 1 entries"),
        ({"preferences": [[0.5, float("nan")], [0.2, 0.5]]}, "row 1, column 2"),
        ({"preferences": [[0.5]]}, "at least 2"),
        ({"preferences": 3}, "list of lists"),
        ([], "preferences"),
        ("{", "not JSON"),
        ({**GAME, "reference": [0.5, 0.3]}, "reference"),
        ({**GAME, "reference": [0.5, 0.3, 0.3]}, "adds to 1.1"),
        ({**GAME, "reference": [0.5, 0.5, 0.0]}, "entry 3"),
        ({**GAME, "responses": ["a"]}, "responses"),
        ({**GAME, "refrence": [0.5, 0.3, 0.2]}, "reference"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, data: Any, said: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(UserError, match=said) as caught:
        run(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "egop"}, "egpo"),
        ({"method": "dpo"}, "does not play games"),
        ({"samples": "some"}, "`samples` some"),
        ({"samples": "0"}, "`samples` 0"),
        ({"samples": "9" * 5000}, "`samples` 999"),
        ({"samples": "²"}, "`samples` ²"),
        ({"beta": -1.0}, "`beta` -1"),
        ({"step_size": 0.0}, "`step_size` 0"),
        ({"plot": Path("x.bmp")}, ".svg"),
        ({"method": "inpo", "step_size": 20.0}, "step_size beta"),
    ],
)
def test_wrong_options_are_refused_by_name(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(written(tmp_path, GAME), **changed)


def course(size: int) -> Course:
    policies = np.random.default_rng(0).dirichlet(np.ones(size), 400)
    gaps = np.geomspace(1, 1e-14, 400)
    return Course("a < b", [f"<y{i}>" for i in range(size)], policies, policies[-1], gaps, gaps)


@pytest.mark.parametrize(("size", "known"), [(3, "6d22940a16ceb1d9"), (5, "88cbb201768296e3")])
def test_pictures_are_small_and_well_formed(tmp_path: Path, size: int, known: str) -> None:
    """And to the byte what they were when this package wrote its elements itself (``known``)."""
    from xml.etree import ElementTree

    text = svg(course(size))
    assert hashlib.sha256(text.encode()).hexdigest().startswith(known)
    ElementTree.fromstring(text)
    assert len(text) < 20_000 and "<y0>" not in text
    assert thinned(10).tolist() == list(range(10)) and thinned(10**5)[-1] == 10**5 - 1
    draw(course(size), tmp_path / "deep" / "x.svg")
    assert (tmp_path / "deep" / "x.svg").read_text() == text


def test_a_png_is_drawn_or_the_extra_is_named(tmp_path: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(UserError, match=r"matplotlib.*plots.*\.svg"):
            draw(course(3), tmp_path / "x.png")
    else:
        for size in (3, 5):
            draw(course(size), tmp_path / "x.png")
            assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
