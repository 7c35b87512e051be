"""A game that is killed and started again ends where an uninterrupted one ends, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from farm.base.arrays import Floats
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy
from reference_methods.games.egpo import EGPO
from reference_methods.games.nash_ema import NashEMA
from reference_methods.games.nash_md import NashMD
from reference_methods.games.online_dpo import OnlineDPO
from reference_methods.models.preference_model import PairwisePreferenceModel
from reference_methods.parts.games.training import Game
from tests.games.conftest import asker
from tests.games.test_training import LikesAWord, table_learning
from tests.policies.conftest import PROMPTS, make_policy

SMALL: dict[str, Any] = {"steps": 4, "prompts_per_step": 6, "learning_rate": 1e-2, "checkpoint_minutes": 0.0}

QUICK: dict[str, Any] = {**SMALL, "learning_rate": 0.5}


class Killed(Exception):
    pass


def numbers(policy: Policy) -> torch.Tensor:
    return torch.cat([p.detach().double().reshape(-1) for p in policy.parameters()])


def killed(game: Game, learning: Learning, folder: Path, stop_at: int) -> None:
    def log(metrics: dict[str, float]) -> None:
        if metrics["step"] == stop_at:
            raise Killed

    with pytest.raises(Killed):
        game.train(replace(learning, log=log, checkpoints=folder))


def resumed(game: Game, given: Any, folder: Path) -> None:
    """``given()`` is what the training is given, afresh each time, as in a new process."""
    lines: list[dict[str, float]] = []
    again: list[dict[str, float]] = []
    whole = game.train(replace(given(), log=lines.append))
    for stop_at in (1, 3):
        killed(game, given(), folder, stop_at)
    parts = game.train(replace(given(), log=again.append, checkpoints=folder))
    assert torch.equal(numbers(whole), numbers(parts))
    assert [line["step"] for line in again] == list(range(game.steps))
    timeless = [
        [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in log]
        for log in (lines, again)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    "game",
    [OnlineDPO(**QUICK), NashEMA(**QUICK, decay=0.5), NashMD(**QUICK, gap_every=2), EGPO(**QUICK)],
    ids=lambda game: type(game).__name__,
)
def test_in_a_table_where_questions_repeat(game: Game, cycle: tuple[Floats, Floats], tmp_path: Path) -> None:
    """Nine pairs at most are asked again and again, each time for a new draw: how often is part of the state."""
    resumed(game, lambda: table_learning(cycle, prompts=2), tmp_path)


def test_on_a_language_model(tmp_path: Path) -> None:
    prompts = pd.DataFrame({"instruction": PROMPTS})
    resumed(
        NashEMA(**SMALL, decay=0.5),
        lambda: Learning(1, make_policy(), prompts, asked={"pairs": asker(LikesAWord())}),
        tmp_path,
    )


def test_with_a_preference_model_that_is_fitted_first(cycle: tuple[Floats, Floats], tmp_path: Path) -> None:
    names = ["rock", "paper", "scissors"]
    rows = [("x0", one, other, 1.0) for one, other in zip(names, names[1:] + names[:1], strict=True)]
    pairs = pd.DataFrame(rows * 4, columns=["instruction", "output_1", "output_2", "preference"])
    model = PairwisePreferenceModel(epochs=4, batch_size=6, learning_rate=0.05, held_out_share=0.0)
    game = OnlineDPO(**SMALL, preference_model=model)
    given = replace(table_learning(cycle), asked={}, feedback={"pairs": pairs})
    whole = game.train(given)
    killed(replace(game, preference_model=replace(model, checkpoint_minutes=0.0)), given, tmp_path, 3)
    assert torch.equal(numbers(whole), numbers(game.train(replace(given, checkpoints=tmp_path))))


def test_another_game_is_not_gone_on_with(cycle: tuple[Floats, Floats], tmp_path: Path) -> None:
    game = OnlineDPO(**SMALL)
    killed(game, table_learning(cycle), tmp_path, 2)
    with pytest.raises(UserError, match="another training; delete"):
        replace(game, beta=0.2).train(replace(table_learning(cycle), checkpoints=tmp_path))
