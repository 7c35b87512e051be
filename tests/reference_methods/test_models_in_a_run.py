"""Models that score and methods that need more than pairs, through `farm run` in a small pocket world."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import farm

EXPERIMENT = """
about: every model that scores, and methods of rated lists and of degrees
world: {use: pocket, documents: 64, epochs: 1}
sft: null
responses: {prompts: 8, per_prompt: 4}
feedback:
  pairs: {annotator: training, design: adjacent}
  ratings: {annotator: {use: rater, slope: 0.1, noise: 2.0}}  # so small a base writes no text above the lowest level
  reactions: {annotator: {use: reactor, base: 3.0, bias: {polite: 0.9}}}
reward_model: {epochs: 1, calibration_samples: 8}
models:
  followed: {use: follow_up, calibration_samples: 8}
  liked: {use: reaction_model, epochs: 1, calibration_samples: 8}
  mixed: {use: weighted_model, weights: {reward_model: 0.5, liked: 0.5}}
  doubted: {use: denoised_reward_model, members: 2, remedy: flip+margin, calibration_samples: 8}
methods:
  by_follow_ups: {use: best_of_n, n: 2, reward_model: followed}
  by_sum: {use: best_of_n, n: 2, reward_model: mixed}
  by_doubted: {use: best_of_n, n: 2, reward_model: doubted}
  spo_degree: {method: {use: dpo, epochs: 1}, gamma: 1.0}
  curry_dpo: {measured: 4}
sizes: {pairs: 8, prompts: 4, evaluation: 2, samples: 1}
reporter: null
"""


def test_models_and_methods_in_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(EXPERIMENT)
    farm.run("small.yaml", out="run")
    outputs = pd.read_parquet("run/tables/outputs.parquet")
    methods = {"sft", "by_follow_ups", "by_sum", "by_doubted", "spo_degree", "curry_dpo"}
    assert set(outputs["method"]) == methods and np.isfinite(outputs["gold"]).all()
    metrics = pd.read_json("run/metrics.jsonl", lines=True).groupby("method")
    degree = metrics.get_group("spo_degree")["degree_loss"]
    assert degree.iloc[0] == pytest.approx(np.log(5), abs=1e-4) and np.isfinite(degree).all()
    stages = metrics.get_group("curry_dpo")["kl"].dropna()
    assert len(stages) == 4 and stages.iloc[0] == pytest.approx(0, abs=1e-5)
