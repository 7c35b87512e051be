"""The named experiments of the pocket world through the command line, in small: each of these files runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import started
from tests.test_pocket import SMALL

ONE_STEP = ["methods.nash_md.steps=1", "methods.nash_md.prompts_per_step=8", "methods.sppo.steps=1"]
CASES: dict[str, tuple[list[str], list[str]]] = {
    "games": (["dpo", "nash_md", "sppo"], [*ONE_STEP, "methods.sppo.prompts_per_step=8"]),
    "overoptimization": (["best_of_n"], ["seeds=[1]", "sweep={annotator.rate: [0.0, 0.25], sizes.pairs: [64, 96]}"]),
    "validation": (["feedme", "best_of_n", "dpo"], ["seeds=[1]", "methods.best_of_n.n=2"]),
    "annotator_noise": (["feedme", "best_of_n"], ["seeds=[1]", "methods.best_of_n.n=2"]),
}
"""which methods of each, and what makes it small besides"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world is trained once for all."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_named_experiment_runs_in_small(name: str, home: Path, tmp_path: Path) -> None:
    methods, further = CASES[name]
    small = [setting for setting in SMALL if not setting.startswith("methods.")]
    words = [word for setting in (*small, *further) for word in ("--set", setting)]
    words += ["--only", ",".join(methods)]
    environment = {**os.environ, "FARM_HOME": str(home)}
    done = started.run("run", name, "--out", "run", "--json", *words, cwd=tmp_path, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (tmp_path / said["report"]).is_file()
    assert {row["method"] for row in said["leaderboard"]} >= set(methods)
