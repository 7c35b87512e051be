"""A training that is stopped and started again ends where an uninterrupted one ends, to the bit."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farm.base.errors import UserError
from farm.roles.protocols import Learning
from reference_methods.games.egpo import EGPO
from reference_methods.imitation.sft import SFT
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.alpaca_farm_ppo import AlpacaFarmPPO
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.online.quark import Quark
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.kto import KTO
from reference_methods.parts.checkpoints import packed, unpacked
from reference_methods.selection.expert_iteration import ExpertIteration
from reference_methods.selection.raft import RAFT
from tests.policies.conftest import PROMPTS, make_policy
from tests.training.conftest import everything, numbers

OFTEN = {"checkpoint_minutes": 0.0}
ONLINE = {"steps": 4, "rollouts": 12, "minibatches": 2, "missing_eos_reward": None, **OFTEN}
METHODS: dict[str, Any] = {
    "sft": SFT(epochs=2, batch_size=5, learning_rate=1e-2, **OFTEN),
    "dpo": DPO(epochs=2, batch_size=7, learning_rate=1e-2, **OFTEN),
    "reward_model": RewardModel(epochs=2, batch_size=7, learning_rate=1e-2, calibration_samples=12, **OFTEN),
    "ppo": PPO(epochs=2, learning_rate=1e-2, value_learning_rate=1e-2, **ONLINE),
    "rloo": RLOO(learning_rate=1e-2, **ONLINE),
    "quark": Quark(quantiles=3, learning_rate=1e-2, **ONLINE),
    "dapo": GRPO(samples_per_prompt=2, drop_equal_groups=True, refills=2, learning_rate=1e-2, **ONLINE),
    "alpaca_farm_ppo": AlpacaFarmPPO(learning_rate=1e-2, value_learning_rate=1e-2, **ONLINE),
    "expert_iteration": ExpertIteration(n=2, rounds=2, prompts=5, epochs=1, batch_size=4, learning_rate=1e-2, **OFTEN),
    "egpo lora": EGPO(steps=4, prompts_per_step=6, tune="lora", lora_rank=2, learning_rate=1e-2, **OFTEN),
    "kto": KTO(epochs=2, batch_size=11, learning_rate=1e-2, **OFTEN),
    "raft": RAFT(stages=2, prompts=5, n=3, epochs=1, batch_size=4, learning_rate=1e-2, **OFTEN),
    "lora": RLOO(learning_rate=1e-2, tune="lora", lora_rank=2, **ONLINE),
}
TIMES = {"tokens_per_second", "seconds"}


class Killed(Exception):
    pass


def run(method: Any, given: Learning, folder: Path | None, stop_at: int | None = None) -> tuple[Any, list[Any]]:
    """Train with ``folder``; killed when the line of step ``stop_at`` is logged, before its checkpoint is written."""
    lines: list[dict[str, float]] = []

    def log(metrics: dict[str, float]) -> None:
        if metrics["step"] == stop_at:
            raise Killed
        lines.append(metrics)

    asked = {kind: copy.deepcopy(asker) for kind, asker in given.asked.items()}  # a process has one of its own
    return method.train(replace(given, log=log, checkpoints=folder, asked=asked)), lines


def without_times(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def given() -> Learning:
    return everything()


@pytest.mark.parametrize("name", METHODS)
def test_stopped_twice_it_ends_where_an_undisturbed_run_ends(name: str, given: Learning, tmp_path: Path) -> None:
    method = METHODS[name]
    learned, lines = run(method, given, None)
    for stop_at in (1, 3):
        with pytest.raises(Killed):
            run(method, given, tmp_path, stop_at)
    again, seen = run(method, given, tmp_path)
    assert torch.equal(numbers(learned), numbers(again))
    assert without_times(seen) == without_times(lines)
    assert [line["step"] for line in seen] == list(range(len(lines)))  # each once


def test_packed_samples_come_back_as_they_were() -> None:
    policy = make_policy()
    samples = policy.sample(PROMPTS * 2, seed=1, purpose="pack", max_new_tokens=3)
    odd = replace(samples, outputs=["\ud800 \n é", *samples.outputs[1:]])  # half a character, as a cut byte may give
    for given in (odd, samples.select([0]), samples.select([])):
        found = unpacked(packed(given))
        assert (found.prompts, found.outputs, found.finish_reason) == (
            given.prompts,
            given.outputs,
            given.finish_reason,
        )
        for name in ("prompt_tokens", "response_tokens", "log_probabilities"):
            for one, other in zip(getattr(found, name), getattr(given, name), strict=True):
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype


def test_it_does_go_on_and_not_begin_again(given: Learning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reference_methods.parts import trainer

    with pytest.raises(Killed):
        run(METHODS["sft"], given, tmp_path, 4)
    counted = []
    true = trainer.accumulate
    monkeypatch.setattr(trainer, "accumulate", lambda *given: counted.append(1) or true(*given))
    _, lines = run(METHODS["sft"], given, tmp_path)
    assert len(counted) == len(lines) - 4


def test_the_folder_holds_one_complete_checkpoint_without_pickles(given: Learning, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(METHODS["ppo"], given, tmp_path, 3)
    (folder,) = (tmp_path / "ppo").iterdir()
    assert folder.name == "step-000000003"
    assert {p.name for p in folder.iterdir()} == {"training.safetensors", "training.json"}
    facts = json.loads((folder / "training.json").read_text())
    assert facts["step"] == 3 and facts["updates"] == 3 * 4 and len(facts["lines"]) == 3


def test_a_finished_training_leaves_its_checkpoint_and_repeats_itself(given: Learning, tmp_path: Path) -> None:
    learned, lines = run(METHODS["rloo"], given, tmp_path)
    again, seen = run(METHODS["rloo"], given, tmp_path)
    assert torch.equal(numbers(learned), numbers(again)) and seen == lines
    assert (tmp_path / "rloo").is_dir()  # whoever gave the folder removes it


def test_another_training_is_not_gone_on_with(given: Learning, tmp_path: Path) -> None:
    run(METHODS["sft"], given, tmp_path)
    other = replace(METHODS["sft"], learning_rate=2e-2)
    with pytest.raises(UserError, match="another training; delete"):
        run(other, given, tmp_path)
    run(replace(METHODS["sft"], checkpoint_minutes=5.0), given, tmp_path)  # how often is no part of what


def test_other_labels_or_another_start_is_another_training(given: Learning, tmp_path: Path) -> None:
    assert given.preferences is not None
    relabelled = given.preferences.assign(preference=3 - given.preferences["preference"])
    moved = make_policy()
    with torch.no_grad():
        next(iter(moved.parameters())).add_(1e-3)
    for name, changed in (("dpo", {"feedback": {"pairs": relabelled}}), ("rloo", {"policy": moved})):
        run(METHODS[name], given, tmp_path)
        with pytest.raises(UserError, match="another training; delete"):
            run(METHODS[name], replace(given, **changed), tmp_path)
    run(METHODS["dpo"], replace(given, feedback={"pairs": given.preferences.copy()}), tmp_path)


def test_a_damaged_checkpoint_is_named(given: Learning, tmp_path: Path) -> None:
    run(METHODS["sft"], given, tmp_path)
    (folder,) = (tmp_path / "sft").iterdir()
    (folder / "training.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="cannot be read"):
        run(METHODS["sft"], given, tmp_path)
    (folder / "training.json").unlink()  # not complete: as if it had never been
    run(METHODS["sft"], given, tmp_path)


def test_seldom_is_seldom(given: Learning, tmp_path: Path) -> None:
    run(replace(METHODS["sft"], checkpoint_minutes=60.0), given, tmp_path)
    assert not (tmp_path / "sft").exists()
