"""``farm run`` under torchrun: the stages in step, one writer, the result of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.farm.test_experiment import EXPERIMENT, WORLD
from tests.started import FARM

METHODS = {
    "best_of_n": {"use": "best_of_n", "n": 8},
    "dpo": {"use": "dpo", "learning_rate": 0.1, "batch_size": 64, "epochs": 1},
    "rloo": {"use": "rloo", "learning_rate": 0.1, "steps": 4, "rollouts": 64},
    "broken": {"use": "dpo", "learning_rate": 1e40, "batch_size": 64, "epochs": 1, "max_gradient_norm": 1e40},
}


def run(place: Path, home: str, *launcher: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FARM_HOME": str(place / home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(place)}
    command = [*launcher, str(FARM), "run", "table.yaml", "--out", str(place / f"run {home}")]
    return subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_processes_make_what_one_makes(tmp_path: Path) -> None:
    (tmp_path / "table_world_for_test.py").write_text(WORLD)
    sizes = {"pairs": 600, "prompts": 50, "evaluation": 10, "samples": 20}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "methods": METHODS, "sizes": sizes}))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    alone, together = run(tmp_path, "alone"), run(tmp_path, "together", *torchrun)
    assert (tmp_path / "run together" / "leaderboard.json").is_file(), together.stderr[-3000:]
    assert ("broken" in alone.stderr) == ("broken" in together.stderr)
    one, other = (
        pd.read_json(tmp_path / f"run {home}" / "leaderboard.json").set_index("method").sort_index()
        for home in ("alone", "together")
    )
    numbers = one.select_dtypes("number").columns
    pd.testing.assert_frame_equal(one[numbers], other[numbers], atol=1e-3, rtol=1e-3)
    for home in ("alone", "together"):
        text = (tmp_path / f"run {home}" / "metrics.jsonl").read_text()
        steps = [(line["method"], line["step"]) for line in map(json.loads, text.splitlines())]
        assert len(steps) == len(set(steps)) and {"dpo", "rloo"} <= {method for method, _ in steps}

    def made() -> dict[Path, str]:
        return {path: path.read_text() for path in (tmp_path / "together" / "artifacts").glob("*/stage.json")}

    before = made()
    again = run(tmp_path, "together", *torchrun)  # everything but the failure is found; both processes end
    assert "broken" in again.stderr and made() == before
    assert not list((tmp_path / "together" / "artifacts").glob("*.partial"))
