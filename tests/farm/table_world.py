"""A world of one table and an experiment in it whose stages take milliseconds, for tests of the loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from tests import started

WORLD = '''
"""A world of one table: responses of k times the word good and j times the word bad."""
import numpy as np
import pandas as pd
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Features

RESPONSES = [("good " * k + "bad " * j).strip() for k in range(4) for j in range(4)]
PROMPTS = [f"question {i}" for i in range(20)]

class Words:
    gold_weights = {"good": 1.0, "bad": -0.7}
    def __call__(self, instructions, outputs):
        counts = {word: [o.split().count(word) for o in outputs] for word in self.gold_weights}
        return pd.DataFrame({**counts, "length": [len(o.split()) for o in outputs], "lists": 0})

class TableWorld:
    features: Features
    truth_known: bool
    def __init__(self, concentration: float = 0.0):
        self.features, self.truth_known, self.concentration = Words(), True, concentration
    def instructions(self, split, limit=None):
        return pd.DataFrame({"instruction": PROMPTS, "split": split, "dataset": "table"})[:limit]
    def demonstrations(self, limit=None):
        return None
    def base_policy(self):
        return TabularPolicy(PROMPTS, RESPONSES, np.full((len(PROMPTS), len(RESPONSES)), self.concentration))
'''

METHODS = '''
"""Methods that go wrong, and one that leaves checkpoints."""
import os
import time
from dataclasses import dataclass

@dataclass(frozen=True)
class Broken:
    needs = frozenset({"pairs"})
    sentence: str = "it was never going to work"
    def train(self, learning):
        raise RuntimeError(self.sentence)

@dataclass(frozen=True)
class Dying:
    """Kills its own process the first time, or always."""
    needs = frozenset()
    always: bool = False
    def train(self, learning):
        import signal
        mark = learning.checkpoints / "begun"
        if self.always or not mark.exists():
            mark.write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return learning.policy

@dataclass(frozen=True)
class Waiting:
    """Does not end before there is a file ``go`` beside the experiment, so that a kill never comes too late."""
    needs = frozenset()
    def train(self, learning):
        open("waits", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
        return learning.policy

@dataclass(frozen=True)
class Stepping:
    """Counts its steps in a checkpoint; if asked to, it waits halfway for a file ``go`` beside the experiment."""
    needs = frozenset()
    steps: int = 20
    seconds: float = 0.05
    waits: bool = False
    def train(self, learning):
        mark = learning.checkpoints / "steps"
        done = int(mark.read_text()) if mark.exists() else 0
        learning.steps(self.steps)
        for step in range(done, self.steps):
            time.sleep(self.seconds)
            while self.waits and step == self.steps // 2 and not os.path.exists("go"):
                time.sleep(0.01)
            learning.log({"step": step})
            written = mark.with_suffix(".new")
            written.write_text(str(step + 1))
            written.replace(mark)  # a kill leaves the old count or the new one
        return learning.policy
'''

EXPERIMENT: dict[str, Any] = {
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
    "evaluator": {"use": "leaderboard", "rounds": 50},
    "aggregator": {"use": "replicates", "rounds": 50},
    "reporter": None,
    "sizes": {"pairs": 300, "prompts": 50, "evaluation": 10, "samples": 10},
}


def write(place: Path, **changes: Any) -> Path:
    """Write the world, the methods and ``table.yaml`` into a folder."""
    (place / "table_world_for_test.py").write_text(WORLD)
    (place / "methods_for_test.py").write_text(METHODS)
    (place / "table.yaml").write_text(yaml.safe_dump({**EXPERIMENT, **changes}, sort_keys=False))
    return place


def environment(place: Path, home: str) -> dict[str, str]:
    return {**os.environ, "FARM_HOME": str(place / home), "OMP_NUM_THREADS": "1"}


def start(place: Path, home: str, *arguments: str, command: str = "run") -> started.Started:
    words = [command, *(["table.yaml"] if command == "run" else []), *arguments]
    return started.start(*words, cwd=place, env=environment(place, home))


def finish(process: started.Started, status: int = 0) -> tuple[str, str]:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == status, f"{out}\n{errors}"
    return out, errors


def same(one: Path, other: Path) -> None:
    """Two run folders have the same tables and the same leaderboard, variants included."""
    assert (one / "leaderboard.json").read_text() == (other / "leaderboard.json").read_text()
    first, second = (sorted(p.relative_to(f) for p in f.rglob("*.parquet")) for f in (one, other))
    assert first == second
    assert first
    for name in first:
        tables = [pd.read_parquet(folder / name) for folder in (one, other)]
        pd.testing.assert_frame_equal(*(t.drop(columns=["seconds", "cached"], errors="ignore") for t in tables))
