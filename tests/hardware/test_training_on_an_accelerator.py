"""Every method and every game on the pretend accelerator: nothing is left on the processor, and nothing mixes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from farm.engines.transformers import Transformers
from farm.hardware.device import device
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning
from reference_methods.imitation.sft import SFT
from reference_methods.online.ppo import PPO
from reference_methods.selection.raft import RAFT
from tests.games.conftest import asker
from tests.games.test_training import ALL, LikesAWord
from tests.policies.conftest import PROMPTS, make_policy, small_model, word_tokenizer
from tests.pretend_accelerator import Accelerator, Pretended
from tests.reference_methods.tables import recorder
from tests.reference_methods.test_on_a_language_model import METHODS, CountsWords, pair_table, worth


class Counts(CountsWords):
    """A reward model whose scores are where its critic is."""

    def scores(self, samples: Any) -> torch.Tensor:
        return super().scores(samples).to(next(self.critic.parameters()).device)


@lru_cache(maxsize=1)
def tables() -> dict[str, Any]:
    """What is learned from, written on the processor once."""
    policy = make_policy()
    demonstrations = policy.sample(PROMPTS * 2, seed=6, purpose="demonstrations").frame("human")
    return {"feedback": {"pairs": pair_table(policy, 8)}, "demonstrations": demonstrations[["instruction", "output"]]}


def everything(where: torch.device, **given: Any) -> Learning:
    policy = LanguageModelPolicy(small_model().to(where), word_tokenizer(), template="{prompt}", max_new_tokens=12)
    return Learning(
        **{
            "seed": 1,
            "policy": policy,
            "prompts": pd.DataFrame({"instruction": PROMPTS}),
            "models": {"reward_model": Counts(policy.scorer(3))},
            "asked": {"pairs": asker(LikesAWord())},
            "gold": worth,
            **tables(),
            **given,
        }
    )


QUICK = {"dpo", "NashMD"}
"""the rest takes minutes, and is slow"""


def all_of(names: Iterable[str]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


GAMES = {type(game).__name__: game for game in ALL}


def all_there(learned: Any) -> bool:
    return all(isinstance(parameter, Pretended) for parameter in learned.parameters())


@pytest.mark.parametrize("name", all_of(METHODS))
def test_every_method_trains_on_the_accelerator_and_is_saved(
    name: str, accelerator: Accelerator, tmp_path: Path
) -> None:
    log, record = recorder()
    few = replace(METHODS[name], steps=1) if hasattr(METHODS[name], "steps") else METHODS[name]
    learned = few.train(everything(device(), log=record))
    assert log and all(math.isfinite(value) for line in log for value in line.values())
    learned.save(tmp_path / "learned")
    assert all_there(load(tmp_path / "learned"))


@pytest.mark.parametrize("name", all_of(GAMES))
def test_every_game_trains_on_the_accelerator(name: str, accelerator: Accelerator) -> None:
    few = replace(GAMES[name], steps=1, prompts_per_step=6, learning_rate=5e-3, micro_batch_tokens=10_000)
    assert all_there(few.train(everything(device())))


@pytest.mark.parametrize("method", [PPO(steps=1, rollouts=16), RAFT(n=2, stages=1, prompts=8, batch_size=4)])
def test_a_reward_model_that_was_left_on_the_processor_is_an_error_at_once(
    method: Any, accelerator: Accelerator
) -> None:
    given = everything(device())
    here = LanguageModelPolicy(small_model(), word_tokenizer(), template="{prompt}").scorer(3)
    with pytest.raises(RuntimeError, match="same device"):
        method.train(replace(given, models={"reward_model": CountsWords(here)}))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"tune": "lora", "lora_rank": 2}, {"tune": "last_layers", "last_layers": 1}])
def test_parts_of_a_model_train_there_and_a_stopped_training_goes_on(
    settings: dict[str, Any], accelerator: Accelerator, tmp_path: Path
) -> None:
    method = SFT(batch_size=4, learning_rate=1e-3, checkpoint_minutes=0, gradient_checkpointing=True, **settings)
    straight = method.train(everything(device()))

    def stop(line: dict[str, float]) -> None:
        if line["step"] == 1:
            raise KeyboardInterrupt

    given = everything(device(), checkpoints=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        method.train(replace(given, log=stop))
    resumed = method.train(given)
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one.detach().cpu(), other.detach().cpu(), rtol=0, atol=0)


@pytest.mark.parametrize("lean", [True, False], ids=["the lean loop", "transformers"])
def test_what_is_written_there_is_what_is_written_here(
    lean: bool, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not lean:
        monkeypatch.setattr("farm.policies.language_model.is_plain_llama", lambda model: False)
    there, here = (
        LanguageModelPolicy(
            small_model().to(where), word_tokenizer(), template="{prompt}", max_new_tokens=8, engine=Transformers(4)
        ).sample(PROMPTS, seed=0, purpose="t")
        for where in (device(), torch.device("cpu"))
    )
    assert there.outputs == here.outputs
