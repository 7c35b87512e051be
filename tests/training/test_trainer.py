"""What a Trainer does for every method: its loop, the check before the first update, trainings within trainings."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from farm.base.errors import UserError
from farm.hardware.models import tiny_llama
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning, Policy
from farm.storage.code_digest import _followed
from reference_methods.imitation.sft import SFT
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from reference_methods.parts import checkpoints
from reference_methods.parts.batches import Batch, TrainingRows
from reference_methods.parts.pairs import PairsWithReference
from reference_methods.parts.precision import AtStart
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline
from reference_methods.selection.expert_iteration import ExpertIteration
from reference_methods.selection.raft import RAFT
from tests.policies.conftest import PROMPTS, SPECIAL, WORDS, make_policy, word_tokenizer
from tests.training.conftest import everything, numbers
from tests.training.test_checkpoints import Killed, run, without_times

SETTINGS = Offline(batch_size=2, learning_rate=1e-2, checkpoint_minutes=0.0)
OFTEN: dict[str, Any] = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "checkpoint_minutes": 0.0}
WITH_ROUNDS: dict[str, Any] = {
    "expert_iteration": ExpertIteration(n=2, rounds=3, prompts=6, **OFTEN),
    "raft": RAFT(n=2, stages=3, prompts=6, **OFTEN),
}


@pytest.fixture(scope="module")
def given() -> Learning:
    return everything()


class Simple:
    """The likelihood of a few responses is raised."""

    def __init__(self) -> None:
        self.policy = make_policy()
        self.samples = self.policy.sample(PROMPTS, seed=1, purpose="test")
        self.rows = TrainingRows.of(self.samples)

    def trainer(self, given: Learning) -> Trainer:
        return Trainer(SETTINGS, given, "simple", [(self.policy, 1e-2)])

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        found, mask = self.policy.log_probabilities(self.samples.select(batch.rows))
        return batch.mean(-found, mask), {}


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_a_loop_that_is_left_early_has_its_line_and_its_checkpoint(given: Learning, tmp_path: Path) -> None:
    lines: list[dict[str, float]] = []
    simple = Simple()
    with simple.trainer(replace(given, log=lines.append, checkpoints=tmp_path)) as trainer:
        for batch in trainer.batches(simple.rows):
            trainer.update(batch, simple.loss)
            if trainer.step == 1:
                break
    assert [line["step"] for line in lines] == [0, 1] and all("loss" in line for line in lines)
    assert [path.name for path in (tmp_path / "simple").iterdir()] == ["step-000000002"]


def test_networks_are_whole_again_wherever_the_loop_was_left(given: Learning, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("shard_networks", "gather"):
        monkeypatch.setattr(Offline, name, lambda self, networks, name=name: calls.append(name))
    for stop in (0, 1, 99):
        simple = Simple()
        with simple.trainer(given) as trainer:
            for batch in trainer.batches(simple.rows):
                trainer.update(batch, simple.loss)
                if trainer.step == stop:
                    break
    assert calls == ["shard_networks", "gather"] * 3


def test_an_update_outside_of_the_loop_and_a_loop_without_with_are_one_sentence_each(given: Learning) -> None:
    simple = Simple()
    batch = simple.rows.batch(np.arange(1))
    trainer = simple.trainer(given)
    with pytest.raises(RuntimeError, match="simple: a Trainer's loop stands in a `with` statement"):
        next(trainer.batches(simple.rows))
    with trainer, pytest.raises(RuntimeError, match="simple: `update` stands outside of the loop"):
        trainer.update(batch, simple.loss)
    with trainer:
        for inside in trainer.batches(simple.rows):
            trainer.update(inside, simple.loss)
        with pytest.raises(RuntimeError, match="simple: `update` stands outside of the loop"):
            trainer.update(batch, simple.loss)


def test_after_the_loop_the_step_is_the_number_of_steps_resumed_or_not(given: Learning, tmp_path: Path) -> None:
    """The line after a training has the number that follows the last step's, also if nothing was left to do."""
    method = RewardModel(held_out_share=0.3, calibration_samples=12, **OFTEN)
    _, lines = run(method, given, tmp_path)
    assert [line["step"] for line in lines] == list(range(len(lines))) and "held_out_accuracy" in lines[-1]
    _, again = run(method, given, tmp_path)
    assert again == lines


def test_what_is_restored_forgets_updates_and_their_metrics_but_not_what_was_logged(given: Learning) -> None:
    lines: list[dict[str, float]] = []
    simple = Simple()
    with simple.trainer(replace(given, log=lines.append)) as trainer:
        for batch in trainer.batches(simple.rows):
            here, before = trainer.snapshot(), numbers(simple.policy)
            wrong = trainer.update(batch, simple.loss)
            trainer.log(kept=float(trainer.step))
            trainer.restore(here)
            assert torch.equal(numbers(simple.policy), before)
            right = trainer.update(batch, simple.loss)
            assert right == wrong
    uninterrupted = Simple()
    with uninterrupted.trainer(given) as trainer:
        for batch in trainer.batches(uninterrupted.rows):
            trainer.update(batch, uninterrupted.loss)
    assert torch.equal(numbers(simple.policy), numbers(uninterrupted.policy))
    assert [line["kept"] for line in lines] == [0, 1, 2]


# --- trainings within trainings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_ROUNDS)
def test_rounds_that_are_over_are_not_made_again(
    name: str, given: Learning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = WITH_ROUNDS[name]
    learned, lines = run(method, given, None)
    each = len(lines) // 3
    with pytest.raises(Killed):
        run(method, given, tmp_path, 2 * each + 2)  # in the training of the third round
    (whole,) = (tmp_path / name).glob("step-*")
    assert whole.name == "step-000000002"
    assert len(list((tmp_path / name).glob("part-*"))) == 1  # of the third round, whose training goes on
    purposes: list[str] = []
    sample = LanguageModelPolicy.sample

    def noted(self: Any, prompts: Any, **more: Any) -> Any:
        purposes.append(more["purpose"])
        return sample(self, prompts, **more)

    monkeypatch.setattr(LanguageModelPolicy, "sample", noted)
    again, seen = run(method, given, tmp_path)
    assert {purpose.split("/")[1] for purpose in purposes} <= {"round 2", "stage 2"}
    assert torch.equal(numbers(learned), numbers(again))
    assert without_times(seen) == without_times(lines)
    assert [path.name for path in (tmp_path / name).iterdir()] == ["step-000000003"]  # it replaces what parts left


def test_a_round_announces_its_lines_at_the_start(given: Learning) -> None:
    for method in WITH_ROUNDS.values():
        totals: list[int] = []
        _, lines = run(method, replace(given, steps=totals.append), None)
        assert totals == [len(lines)]


def test_a_checkpoint_of_another_format_is_refused(
    given: Learning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = SFT(**OFTEN)
    monkeypatch.setattr(checkpoints, "FORMAT", 1)
    run(method, given, tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="another training; delete the folder to start afresh"):
        run(method, given, tmp_path)
    shutil.rmtree(tmp_path / "sft")
    run(method, given, tmp_path)


# --- before the first update ------------------------------------------------------------------------------------------


def sharp_policy(compute_dtype: str | None) -> LanguageModelPolicy:
    """Logits of more than 10, as of a trained model, so that 16 bits round visibly."""
    model = tiny_llama(len(SPECIAL) + len(WORDS), 192, 2, 4, 384, 64, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return LanguageModelPolicy(
        model, word_tokenizer(), template="{prompt}", max_new_tokens=50, compute_dtype=compute_dtype
    )


DPO_STARTS = DPO(beta=1.0, epochs=1, batch_size=4, learning_rate=0.0, micro_batch_tokens=60)
RLOO_STARTS = RLOO(steps=1, rollouts=12, missing_eos_reward=None, micro_batch_tokens=200)


@pytest.mark.parametrize("compute_dtype", [None, "bfloat16"])
def test_a_wrong_start_is_caught_at_every_precision(compute_dtype: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    given = everything(sharp_policy(compute_dtype))
    right = PairsWithReference.of

    def without(pairs: Any, trainer: Trainer, reference: Policy | None) -> PairsWithReference:
        return right(pairs, trainer, None)

    monkeypatch.setattr(PairsWithReference, "of", without)
    with pytest.raises(RuntimeError, match=r"before the first update loss must be 0\.6931"):
        DPO_STARTS.train(given)


@pytest.mark.parametrize(
    "method", [DPO_STARTS, RLOO(steps=1, rollouts=12, missing_eos_reward=None)], ids=["dpo", "rloo"]
)
def test_a_right_start_is_passed_in_16_bits(method: Any) -> None:
    method.train(everything(sharp_policy("bfloat16")))


def test_what_rounding_allows_is_what_it_does() -> None:
    """Three standard deviations of a mean of n values of a x + b x^2 / 2, x the sum of T errors of a token."""
    policy, rows, tokens = make_policy(compute_dtype="bfloat16"), 16, 16 * 40
    at, deviation = AtStart(0.0, slope=0.5, curvature=0.25), 16 * 2**-7 / 6**0.5 * 40**0.5
    draws = torch.randn(20_000, rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * deviation
    means = (0.5 * draws + 0.125 * draws**2).mean(1)
    allowed = at.tolerance(policy, rows, tokens)
    assert float((means.abs() < allowed).double().mean()) > 0.99 and float(means.abs().max()) > 0.6 * allowed
    assert AtStart(0.0, 0.5, 0.25).tolerance(make_policy(), rows, tokens) < 1e-5  # in 32 bits nothing to speak of
    assert AtStart(0.0).tolerance(policy, rows, tokens) == 0


# --- what is made again when code changes -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["imitation.sft", "pairs.dpo", "models.reward_model", "models.preference_model"])
def test_an_edit_of_what_samples_online_makes_no_offline_method_again(name: str) -> None:
    """The address of what is trained follows imports, so the trainer knows no rollouts and no games."""
    module = importlib.import_module(f"reference_methods.{name}")
    assert module.__file__ is not None
    parts = Path(module.__file__).parents[1] / "parts"
    files = {
        file.relative_to(parts).as_posix()
        for _, file in _followed(Path(module.__file__), module.__name__)
        if file.is_relative_to(parts)
    }
    online = {"online.py", "rollouts.py", "sampler.py", "kl.py"}
    games = {"games/trainer.py", "games/duels.py", "games/training.py"}
    assert "trainer.py" in files and all((parts / name).is_file() for name in online | games)
    assert not files & (online | games)
