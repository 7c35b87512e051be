"""CPL: its loss, its reduction to DPO, the two times two of labels and learners, and the method on the chain."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import farm
from farm.roles.protocols import Learning
from farm.worlds.grid import GridWorld
from reference_methods.pairs.cpl import CPL
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.losses import bradley_terry, contrastive
from reference_methods.parts.pairs import Pairs
from reference_methods.studies.segments import Segments

FIRST = torch.tensor([-0.3, -2.0, -1.0], dtype=torch.float64)
SECOND = torch.tensor([-1.5, -0.4, -1.0], dtype=torch.float64)
LABEL = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)


def test_with_the_reference_and_no_bias_it_is_dpo() -> None:
    draws = torch.Generator().manual_seed(1)
    written, reference = torch.randn(2, 2, 6, generator=draws, dtype=torch.float64)
    pairs = Pairs(written, reference, torch.full((2, 6), 3.0), torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0, 0.3]))
    for ours, theirs in zip(
        CPL(alpha=0.2, bias=1.0, anchored=True).pair_loss(pairs), DPO(beta=0.2).pair_loss(pairs), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_only_a_bias_sees_how_likely_both_segments_are() -> None:
    both = [contrastive(FIRST + shift, SECOND + shift, LABEL) for shift in (0.0, 0.7)]
    assert torch.allclose(*both) and torch.allclose(both[0], bradley_terry(FIRST - SECOND, LABEL))
    near, far = (contrastive(FIRST + shift, SECOND + shift, LABEL, bias=0.5) for shift in (0.7, 0.0))
    assert bool((near < far).all())


def test_both_directions_of_a_label_have_the_bias_on_the_losing_side() -> None:
    there = contrastive(FIRST, SECOND, LABEL, bias=0.5)
    assert torch.allclose(there, contrastive(SECOND, FIRST, 1 - LABEL, bias=0.5))


@pytest.mark.parametrize(
    ("method", "labels", "distance", "worth"),
    [
        ("cpl", "regret", 0, 0.724),
        ("reward", "regret", 0, 0.724),
        ("cpl", "return", 0.340, 0.271),
        ("reward", "return", 0, 0.724),
    ],
)
def test_the_limits_of_both_learners_from_both_labels(method: str, labels: str, distance: float, worth: float) -> None:
    """[num] all 48 segments of 3 moves on the chain of 6 cells, every pair, exact labels."""
    table = Segments(labels=None).tables(1)["policies"].set_index(["method", "seen"])
    assert table.loc[(method, labels), "distance"] == pytest.approx(distance, abs=1e-3)
    assert table.loc[(method, labels), "worth"] == pytest.approx(worth, abs=1e-3)


def test_without_consequences_labels_of_regret_and_of_return_teach_the_same() -> None:
    table = Segments(labels=None, gamma=0, length=1, same_start=True).tables(1)["policies"]
    assert table.query("method != 'cautious'")["distance"].max() < 1e-3
    drawn = Segments(labels=200, gamma=0, length=1, same_start=True).tables(1)["policies"]
    worth = drawn.pivot(index="method", columns="seen", values="worth")
    assert worth["regret"].to_numpy() == pytest.approx(worth["return"].to_numpy(), abs=1e-6)


def test_from_few_labels_of_regret_cpl_is_ahead_and_from_returns_far_behind() -> None:
    """[trend]"""
    tables = [Segments(labels=100).tables(seed)["policies"].assign(seed=seed) for seed in range(8)]
    worth = pd.concat(tables).groupby(["seen", "method"])["worth"].mean()
    assert worth["regret", "cpl"] > worth["regret", "reward"]
    assert worth["return", "cpl"] < worth["return", "reward"] - 0.2


@pytest.mark.parametrize(("seen", "distance"), [("advantage", 0.0), ("return", 0.2825)])
def test_the_method_finds_the_limit_on_the_chain(seen: str, distance: float) -> None:
    """Pairs that begin in one cell, as those of a prompt do; the limit is that of the exact fit."""
    world = GridWorld({"6,1 right": 1.0, "1,1 left": 0.3})
    segments = [" ".join(moves) for moves in product(world.moves, repeat=3)]
    rows = [(start, a, b) for start in world.cells for k, a in enumerate(segments) for b in segments[k + 1 :]]
    table = pd.DataFrame(rows, columns=["instruction", "output_1", "output_2"])
    first, second = (world.features(table["instruction"], table[c])[seen] for c in ("output_1", "output_2"))
    table["preference"] = 2 - 1 / (1 + np.exp(second - first))
    given = Learning(seed=1, policy=world.base_policy(), prompts=world.instructions("train"), feedback={"pairs": table})
    method = CPL(alpha=0.5, bias=1.0, epochs=100, batch_size=168, learning_rate=0.3, schedule="linear")
    found = method.train(given).probabilities().detach().numpy()  # type: ignore[union-attr]
    optimal = np.exp(world.advantage / world.alpha)
    assert np.abs(found - optimal).sum(1).mean() / 2 == pytest.approx(distance, abs=5e-3)


def test_the_whole_loop_runs_on_the_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    sizes = {"pairs": 60, "prompts": 6, "evaluation": 6, "samples": 4}
    experiment = {"world": "chain", "judges": {"judge": "regret"}, "methods": {"cpl": {"epochs": 2}}, "sizes": sizes}
    found = farm.run({"name": "walks", **experiment}, {"reporter": None}, out=tmp_path / "run")
    outputs = pd.read_parquet(found.folder / "tables" / "outputs.parquet")
    walked = outputs.query("method == 'cpl'")
    assert len(walked) == 24 and walked["output"].str.fullmatch(r"((left|right) ?){3}").all()
    assert walked["gold"].max() < 0  # a regret is never negative
