"""Every method against every other, by one judge."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eval.ratings.head_to_head import HeadToHead
from farm.base import rng
from farm.base.errors import UserError
from farm.roles.protocols import Comparison
from farm.tables.records import PairIds, annotation_table


class Circle:
    """Rock beats paper beats scissors beats rock, nine times in ten; refuses a tenth of the pairs."""

    def __init__(self, missing: float = 0.1) -> None:
        self.missing = missing

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        kind = {"rock": 0, "paper": 1, "scissors": 2}
        a, b = (pairs[f"output_{i}"].str.split().str[0].map(kind).to_numpy() for i in (1, 2))
        p = np.choose((b - a) % 3, [0.5, 0.9, 0.1])
        ids = PairIds(pairs)
        draw = rng.uniform(seed, "label", ids.pair, replicate)
        draw = np.where(ids.swapped, 1 - draw, draw)
        silent = rng.uniform(seed, "silent", ids.pair, replicate) < self.missing
        status = np.where(silent, "refused", "ok").astype(object)
        return annotation_table(
            pairs, "circle", np.where(silent, np.nan, np.where(draw < p, 1.0, 2.0)), p, seed=seed, status=status
        )


class Silent(Circle):
    """The same, which does not tell its own probability."""

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return super().annotate(pairs, seed=seed, replicate=replicate).assign(p_first=np.nan)


class Nothing:
    def evaluate(self, comparison: Comparison) -> dict[str, pd.DataFrame]:
        return {"leaderboard": pd.DataFrame()}


def comparison(samples: int = 4, instructions: int = 200) -> Comparison:
    rows = []
    for method, kinds in {"rock": ["rock"], "paper": ["paper"], "mix": ["rock", "paper", "scissors"]}.items():
        for i in range(instructions):
            for s in range(samples):
                pick = kinds[int(rng.integers(len(kinds), 1, method, np.uint64(i), s)[0])]
                rows.append((method, f"x{i}", s, f"{pick} {i} {s} {method}"))
    outputs = pd.DataFrame(rows, columns=["method", "instruction", "sample", "output"])
    return Comparison(outputs, {}, "rock", seed=1)


def test_a_circle_is_seen_as_one() -> None:
    found = HeadToHead(Circle(), Nothing()).evaluate(comparison())
    matrix = found["head_to_head"].set_index(["first", "second"])
    assert matrix.loc[("rock", "paper"), "win_rate"] == pytest.approx(90, abs=3)
    both = matrix.loc[("rock", "paper"), "win_rate"] + matrix.loc[("paper", "rock"), "win_rate"]
    assert both == pytest.approx(100)
    for other in ("rock", "paper"):
        row = matrix.loc[("mix", other)]
        assert row["low"] < 50 < row["high"]
    assert matrix["n_total"].eq(800).all() and matrix["missing"].between(40, 130).all()
    worst = found["exploitability"].set_index("method")
    assert worst.loc["paper", "strongest"] == "rock"
    assert worst.loc["paper", "gap"] == pytest.approx(0.8, abs=0.06)
    assert worst.loc["mix", "win_rate"] < 54
    assert worst.loc["paper", "best_response"] == pytest.approx(90, abs=3)  # a rock is always at hand
    coarse = HeadToHead(Silent(), Nothing()).evaluate(comparison())["exploitability"].set_index("method")
    assert 70 < coarse.loc["paper", "best_response"] < 90  # two verdicts do not always tell the best one
    plain = HeadToHead(Circle(), Nothing(), best_responses=False).evaluate(comparison())["exploitability"]
    assert "best_response" not in plain and plain.set_index("method").loc["mix", "gap"] < 0.08
    assert "leaderboard" in found


def test_intervals_hold_what_they_say() -> None:
    hits = 0
    for seed in range(25):
        table = comparison(samples=2, instructions=40)
        table = Comparison(table.outputs, {}, "rock", seed=seed)
        row = HeadToHead(Circle(0.0), Nothing()).evaluate(table)["head_to_head"].set_index(["first", "second"])
        hits += row.loc[("rock", "paper"), "low"] <= 90 <= row.loc[("rock", "paper"), "high"]
    assert hits >= 20


def test_one_answer_is_not_enough() -> None:
    with pytest.raises(UserError, match="at least 2 answers"):
        HeadToHead(Circle(), Nothing()).evaluate(comparison(samples=1))
