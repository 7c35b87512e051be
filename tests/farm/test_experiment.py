"""The loop through its real entry point, in a table where every stage takes milliseconds."""

import json
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from farm.base.errors import UserError
from farm.experiments import run_folder
from tests import started
from tests.farm.table_world import WORLD

EXPERIMENT = {
    "world": {"class": "table_world_for_test.TableWorld"},
    "sft": None,
    "annotator": {
        "class": "annotators.noise.flip.Flip",
        "rate": 0.25,
        "annotator": {"class": "annotators.people.logit.LogitAnnotator"},
    },
    "judges": {
        "judge": {"class": "annotators.people.logit.LogitAnnotator", "temperature": 2.0},
        "gold": {"class": "annotators.people.gold.GoldAnnotator"},
    },
    "reward_model": {"use": "reward_model", "learning_rate": 0.3, "epochs": 2},
    "methods": {
        "best_of_n": {"use": "best_of_n", "n": 8},
        "dpo": {"use": "dpo", "learning_rate": 0.1, "batch_size": 64, "epochs": 2},
    },
    "sizes": {"pairs": 3000, "prompts": 50, "evaluation": 10, "samples": 40},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(place: Path) -> Path:
    (place / "table_world_for_test.py").write_text(WORLD)
    (place / "table.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return place


def _start(place: Path, home: str, *arguments: str) -> started.Started:
    environment = {**os.environ, "FARM_HOME": str(place / home), "OMP_NUM_THREADS": "1"}
    return started.start("run", "table.yaml", "--json", *arguments, cwd=place, env=environment)


def run(place: Path, home: str, *arguments: str) -> dict[str, object]:
    process = _start(place, home, *arguments)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(out)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a run that was made in one go; its home may be used further."""
    place = written(tmp_path_factory.mktemp("uninterrupted"))
    run(place, "home", "--out", "run-1")
    return place


def same(one: Path, other: Path) -> None:
    """Two run folders have the same annotations and the same leaderboard."""
    for name in ("preferences", "outputs", "judge_judge", "judge_gold"):
        tables = [pd.read_parquet(folder / "tables" / f"{name}.parquet") for folder in (one, other)]
        pd.testing.assert_frame_equal(*(t.drop(columns=["seconds"], errors="ignore") for t in tables))
    assert (one / "leaderboard.json").read_text() == (other / "leaderboard.json").read_text()


def test_a_run_leaves_everything_and_repeats_exactly(place: Path, uninterrupted: Path) -> None:
    first = run(place, "home", "--out", "run-1")  # made anew
    again = run(place, "home", "--out", "run-2")  # found in the store
    folder = place / "run-1"
    assert first["run"] == "run-1"
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "leaderboard.csv", "costs.json", "report.html"):
        assert (folder / name).is_file(), name
    assert (folder / "checkpoints" / "dpo").is_dir()
    same(folder, place / "run-2")
    same(folder, uninterrupted / "run-1")
    assert first["leaderboard"] == again["leaderboard"]
    assert all(stage["found"] for stage in json.loads((place / "run-2" / "costs.json").read_text())["stages"])
    board = pd.DataFrame(first["leaderboard"]).set_index("method")
    assert board.loc["dpo", "gold"] > board.loc["sft", "gold"]
    assert board.loc["best_of_n", "gold"] > board.loc["sft", "gold"]
    assert [p.name for p in place.iterdir() if p.name.startswith(".")] == []  # nothing partial is left


def test_another_seed_gives_other_draws_and_a_changed_setting_is_not_served_stale(uninterrupted: Path) -> None:
    place = uninterrupted
    run(place, "home", "--out", "run-2", "--seed", "2")
    one, two = (pd.read_parquet(place / r / "tables" / "preferences.parquet") for r in ("run-1", "run-2"))
    assert (one["output_1"] != two["output_1"]).any()
    run(place, "home", "--out", "run-3", "--set", "methods.dpo.beta=0.5")
    stages = {s["stage"]: s["found"] for s in json.loads((place / "run-3" / "costs.json").read_text())["stages"]}
    assert stages["pairs"]
    assert stages["best_of_n"]
    assert not stages["dpo"]


@pytest.mark.parametrize("stages", [1, 3, 6])
def test_a_killed_run_goes_on_to_the_same_result(place: Path, uninterrupted: Path, stages: int) -> None:
    process = _start(place, "home", "--out", "run-1")
    artifacts = place / "home" / "artifacts"
    while process.poll() is None and len(list(artifacts.glob("[!.]*/stage.json"))) < stages:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    run(place, "home", "--out", "run-1")
    found = [stage["found"] for stage in json.loads((place / "run-1" / "costs.json").read_text())["stages"]]
    assert sum(found) >= stages
    assert not all(found)
    same(place / "run-1", uninterrupted / "run-1")


def test_a_method_that_asks_for_too_much_is_refused(place: Path) -> None:
    process = _start(place, "home", "--set", "judges={gold: {class: annotators.people.gold.GoldAnnotator}}")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "must name a `judge`" in errors


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("methods.baseline={use: dpo}", "`baseline` cannot be a name under `methods`"),
        ("methods.a/b={use: dpo}", "`a/b` cannot be a name under `methods`"),
        ("judges.annotator=person", "`annotator` cannot be a name under `judges`"),
        ("judges.late={use: person, temperature: -1}", "`temperature` = -1 is wrong"),
        ("reporter={use: html, examples: -3}", "examples"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(place: Path, setting: str, complaint: str) -> None:
    process = _start(place, "home", "--set", setting)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert complaint in errors
    assert not (place / "home" / "artifacts").exists()


@pytest.mark.parametrize("stranger", ["config.yaml", "notes.csv"])
def test_a_folder_of_the_users_own_is_never_replaced(place: Path, stranger: str) -> None:
    (place / "mine").mkdir()
    (place / "mine" / stranger).write_text("about: my own experiment")
    process = _start(place, "home", "--out", "mine")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "mine: is there already and is not a run folder" in errors
    assert (place / "mine" / stranger).exists()
    process = _start(place, "home", "--out", ".")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors


def test_a_folder_with_something_else_is_not_overwritten(place: Path) -> None:
    (place / "precious").mkdir()
    (place / "precious" / "thesis.txt").write_text("x")
    process = _start(place, "home", "--out", "precious")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "precious: is there already and is not a run folder" in errors
    assert (place / "precious" / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize("left", [[], ["status.json"], [".status.json.17"], ["status.json", ".status.json.17"]])
def test_what_a_killed_run_leaves_can_be_replaced(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_text("{")
    run_folder.check(tmp_path)
    (tmp_path / "leaderboard.csv").touch()
    with pytest.raises(UserError, match="is not a run folder"):
        run_folder.check(tmp_path)


def test_a_preference_model_is_fitted_once_and_shared(place: Path) -> None:
    game = {"preference_model": "shared_preference", "steps": 3, "prompts_per_step": 8, "learning_rate": 0.1}
    methods = {"sppo": {"use": "sppo", **game}, "nash_md": {"use": "nash_md", **game}}
    fit = {"use": "general_preference_model", "learning_rate": 0.1, "planes": 1}
    smaller = {"methods": methods, "reward_model": None, "preference_model": fit}
    (place / "table.yaml").write_text(yaml.safe_dump({**EXPERIMENT, **smaller}))
    run(place, "home", "--out", "run-1")
    stages = [s["stage"] for s in json.loads((place / "run-1" / "costs.json").read_text())["stages"]]
    assert stages.count("preference model") == 1
    assert "reward model" not in stages
    process = _start(place, "home", "--set", "preference_model=null")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "needs `preference_model`, which is null" in errors
