"""What stages do with a role, each with its progress on the screen and in a file: learn, sample, ask."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.asking.ask import ask as put_before
from farm.asking.kept import in_stage
from farm.base import progress, rng
from farm.base.errors import Fruitless
from farm.experiments import trackers
from farm.experiments.alarms import Alarms
from farm.experiments.setting import Setting
from farm.experiments.stages.stage import Facts
from farm.feedback.kind import kinds
from farm.roles.protocols import Draws, Learning, Method, Policy, PreferenceModel, Samples, Scorer
from farm.storage.artifacts import Place
from farm.tables import records
from farm.tables.turns import Prompt

if TYPE_CHECKING:
    import torch

BATCH = 256
"""responses that are read at once"""


def learn(name: str, method: Method, learning: Learning, place: Place) -> Facts:
    """Train, and save what was learned (``model``) and its metrics (``metrics.jsonl``)."""
    lines: list[str] = []
    latest: dict[str, float] = {}  # what is logged in some steps only is shown until it is logged again
    noted, alarms = _ProgressFile(place.progress), Alarms(name)
    with progress.task(f"training {name}") as work, trackers.tracker(name) as track:

        def log(metrics: dict[str, float]) -> None:
            lines.append(json.dumps({"method": name, **metrics}))
            track(metrics)
            alarms(metrics)
            latest.update(metrics)
            shown = progress.numbers(latest)
            # A line of numbers behind the last step, such as the accuracy on held-out pairs, is no step.
            step = int(not work.total or metrics.get("step", 0) < work.total)
            work.advance(step, note=shown)
            noted.advance(step, shown)

        def expect(total: int) -> None:
            work.expect(total)
            noted.total = total

        learned = method.train(replace(learning, log=log, steps=expect, checkpoints=place.checkpoints))
    (place.folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    learned.save(place.folder / "model")
    return {"steps": len(lines)}


def sample(
    setting: Setting,
    policy: Policy,
    prompts: list[Prompt],
    purpose: str,
    temperature: float,
    shown: str,
    file: Path | None = None,
    draws: Draws | None = None,
) -> Samples:
    """One response to each prompt; ``file`` is where the progress is noted."""
    noted = _ProgressFile(file, len(prompts))
    with progress.task(shown, total=len(prompts)) as work:

        def advance(count: int) -> None:
            work.advance(count)
            noted.advance(count)

        return policy.sample(
            prompts, seed=setting.seed, purpose=purpose, temperature=temperature, progress=advance, draws=draws
        )


def ask(setting: Setting, kind: str, giver: Any, rows: pd.DataFrame, role: str, place: Place) -> pd.DataFrame:
    """The feedback of one kind that who plays a role gives on rows, shown in a drawn order; what is paid for outlives a
    kill of the stage."""
    # A seed of its own for each role: the same annotator as teacher and as judge draws independently.
    seed = rng.torch_seed(setting.seed, role) % 2**31
    return put_before(kinds()[kind], giver, rows, seed=seed, store=in_stage(giver, place.checkpoints))


def scores(scorer: Scorer | PreferenceModel, samples: Samples) -> NDArray[np.float64]:
    """The reward of each response, [n]; NaN of a model that compares two and scores none."""
    return in_batches(scorer.scores, samples) if isinstance(scorer, Scorer) else np.full(len(samples), np.nan)


def in_batches(what: Callable[..., torch.Tensor], *sides: Samples) -> NDArray[np.float64]:
    """``what`` of responses, or of the n pairs of two sides, a number each, [n]; without gradient."""
    import torch

    n = len(sides[0])
    with torch.no_grad():
        rows = [range(start, min(start + BATCH, n)) for start in range(0, n, BATCH)]
        parts = [what(*(side.select(part) for side in sides)) for part in rows]
    return torch.cat(parts).double().cpu().numpy()


def check_answered(table: pd.DataFrame, who: str, least: float = 0.0, kind: str = "pairs") -> None:
    """Refuse verdicts on less than a share of the pairs whose outputs differ, or on none at all; of other kinds, no
    answer on any row."""
    if kind != "pairs":
        if not (table["status"] == "ok").any():
            why = ", ".join(f"{count:,} {status}" for status, count in table["status"].value_counts().items())
            raise Fruitless(f"{who}: none of {len(table):,} {kind} was given ({why})")
        return
    differing, missing = records.unanswered(table)
    given = differing - sum(missing.values())
    if differing and (given == 0 or given < least * differing):
        why = ", ".join(f"{count:,} {status}" for status, count in missing.items())
        asked = f"; `least_verdicts` asks for {least:.0%}" if least else ""
        raise Fruitless(f"{who}: {given:,} verdicts on {differing:,} pairs of different outputs ({why}){asked}")


def spent(table: pd.DataFrame) -> Facts:
    """What is noted of verdicts: how many, and their price in US dollars."""
    return {"verdicts": len(table), "price": float(table["price"].sum())}


def epochs(spec: object) -> float:
    """The ``epochs`` of a described method; 1 where it has none."""
    found = spec.get("epochs", 1) if isinstance(spec, dict) else 1
    return float(found) if isinstance(found, (int, float)) else 1.0


class _ProgressFile:
    """Notes how far a stage has got in a file, at most once a second, for `farm status`."""

    def __init__(self, file: Path | None, total: int = 0) -> None:
        self.file, self.total, self.done = file, total, 0
        self._last = time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        self.done += count
        if self.file is None or time.monotonic() - self._last < 1:
            return
        self._last = time.monotonic()
        beside = self.file.with_suffix(".new")
        try:
            beside.write_text(json.dumps({"done": self.done, "total": self.total, "time": time.time(), "note": note}))
            os.replace(beside, self.file)
        except OSError:  # what is only shown must not stop what is made
            return
