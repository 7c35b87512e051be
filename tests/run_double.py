"""A run folder of made-up answers, by the program's own evaluator and writers, without any training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from eval.evaluators.leaderboard import Leaderboard
from farm.experiments import run_folder
from farm.roles.protocols import Comparison
from farm.tables import formats

METHODS = ("sft", "dpo", "ppo")


def made_up(folder: Path) -> Path:
    """A small run in this folder, with everything that a real one has but its status and its policies."""
    draw = np.random.default_rng(0)
    asked = [f"question {i}" for i in range(6)]
    rows = [(m, i, f"{m} answers {i}", k) for m in METHODS for i in asked for k in range(2)]
    outputs = pd.DataFrame(rows, columns=["method", "instruction", "output", "sample"])
    n = len(outputs)
    outputs = outputs.assign(tokens=3, gold=draw.normal(size=n), proxy=draw.normal(size=n), kl=draw.random(n))
    judged = outputs[["method", "sample", "instruction"]].assign(
        output_1="the baseline's",
        output_2=outputs["output"],
        generator_1="sft",
        generator_2=outputs["method"],
        annotator="judge",
        preference=draw.choice([1.0, 2.0], n),
        p_first=0.5,
        status="ok",
        seed=0,
        replicate=0,
        input_tokens=3.0,
        output_tokens=1.0,
        price=0.01,
        seconds=0.1,
        shown_first=1,
    )
    annotations = {"judge": judged, "gold": judged.assign(preference=draw.choice([1.0, 2.0], n))}
    comparison = Comparison(outputs, annotations, "sft", 0)
    (folder / "tables").mkdir(parents=True)
    tables = {"outputs": outputs, "judge_judge": judged, "judge_gold": annotations["gold"], "preferences": judged}
    for name, table in tables.items():
        formats.write_table(table, folder / "tables" / f"{name}.parquet")
    run_folder.write_tables(folder, Leaderboard(rounds=5).evaluate(comparison))
    evaluator = {"class": "eval.evaluators.leaderboard.Leaderboard", "rounds": 5}
    run_folder.write_config(folder, {"name": "small", "seed": 0, "judges": {"judge": {}}, "evaluator": evaluator})
    (folder / "costs.json").write_text(run_folder.costs_text([], {"annotator": judged}))
    lines = [json.dumps({"method": "dpo", "step": k, "loss": 0.5, "kl": float(k)}) for k in range(4)]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder
