"""Feedback with a scope: three sets of responses, and what is left of C3PO where two of them are empty."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base.errors import UserError
from farm.experiments import experiment, running
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Learning
from farm.worlds.matrix import MatrixWorld
from reference_methods.pairs.c3po import C3PO, _rows
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.batches import TrainingRows
from reference_methods.parts.pairs import PairsWithReference
from reference_methods.parts.preferences import Preferences
from reference_methods.parts.scopes import within
from tests.reference_methods.tables import recorder

RESPONSES = ["plain", "plain too", "emoji", "emoji emoji"]
TOPICS = ["letter", "letter", "story", "plan", "tips", "tips"]


class Emoji(MatrixWorld):
    """Six prompts of four kinds, and a feature that two of four responses have."""

    def __init__(self) -> None:
        super().__init__(utilities=[0.0] * 4, responses=RESPONSES, prompts=6)
        self.features = Counted()  # type: ignore[assignment]


@dataclass(frozen=True)
class Counted:
    gold_weights = {"emoji": 1.0}  # noqa: RUF012

    def __call__(self, instructions: list[str], outputs: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"emoji": [float(text.count("emoji")) for text in outputs]})


class Shared(TabularPolicy):
    """All prompts share one row of logits and each has one of its own, as a network's weights are shared."""

    def log_table(self, temperature: float = 1.0) -> torch.Tensor:
        shared = self.logits.mean(0, keepdim=True)
        return torch.log_softmax((self.logits + 3 * shared) / temperature, dim=-1)

    def copy(self) -> TabularPolicy:
        return Shared(**self.rows.settings(), logits=self.logits)


def given(**more: object) -> Learning:
    prompts = [f"prompt {i + 1}" for i in range(6)]
    policy = Shared(prompts, RESPONSES, torch.zeros(6, 4, dtype=torch.float64))
    table = pd.DataFrame({"instruction": prompts, "task": TOPICS})
    return Learning(seed=2, policy=policy, prompts=table, **more)  # type: ignore[arg-type]


def method(**changed: object) -> C3PO:
    settings = {"world": Emoji(), "feature": "emoji", "wanted": False, "scope": {"task": "letter"}, "size": 64}
    settings |= {"near": {"task": ["story", "plan"]}, "learning_rate": 0.1, "epochs": 8, "beta": 0.5}
    return C3PO(**{**settings, **changed})  # type: ignore[arg-type]


def emoji(policy: object) -> np.ndarray:
    """The chance of the feature, of each prompt."""
    return policy.probabilities()[:, 2:].sum(1).detach().numpy()  # type: ignore[attr-defined]


def test_what_is_learnt_in_the_scope_stays_there_and_without_the_two_terms_it_spreads() -> None:
    both = emoji(method(soft=1.0, hard=1.0).train(given()))
    neither = emoji(method(soft=0.0, hard=0.0).train(given()))
    assert both[:2].max() < 0.2 and neither[:2].max() < 0.05
    assert both[2:].mean() > 0.3 and both[2:].min() > 0.2 > 0.05 > neither[2:].max()
    weights = ({"soft": 0.0, "hard": 5.0}, {"soft": 5.0, "hard": 0.0})
    near_only, rest_only = (emoji(method(**each).train(given())) for each in weights)
    assert near_only[2:4].mean() > near_only[4:].mean() and rest_only[4:].mean() > rest_only[2:4].mean()


def test_without_weights_and_with_a_scope_of_everything_it_is_dpo() -> None:
    whole = {"batch_size": 400, "epochs": 3}  # one batch an epoch: its order does not matter
    for changed in ({"soft": 0.0, "hard": 0.0}, {"scope": {}}):
        c3po = method(**whole, **changed)
        pairs, others = c3po.sets(given())
        assert not any(map(len, others)) and len(pairs) > 40
        table = pd.DataFrame(
            {
                "instruction": pairs.first.prompts,
                "output_1": pairs.first.outputs,
                "output_2": pairs.second.outputs,
                "preference": 1.0,
            }
        )
        dpo = DPO(beta=0.5, learning_rate=0.1, **whole).train(given(feedback={"pairs": table}))
        found = c3po.train(given())
        np.testing.assert_allclose(found.logits.detach(), dpo.logits.detach(), atol=1e-12)  # type: ignore[attr-defined]
        assert np.abs(emoji(dpo) - 0.5).max() > 0.1


def test_at_the_start_the_constraints_have_no_gradient_in_expectation() -> None:
    c3po, learning = method(samples=2), given()
    policy = learning.policy
    everything = policy.encode([p for p in policy.prompts for _ in range(4)], policy.responses * 6)  # type: ignore[attr-defined]
    sides = [0, 0, 0, 0]
    pairs = Preferences(
        everything.select(sides), everything.select(sides), np.full(4, 0.5, np.float32), np.arange(4, dtype=np.uint64)
    )
    data = PairsWithReference(pairs, torch.zeros(2, 4))
    others = [everything.select(np.arange(8, 16)), everything.select(np.arange(16, 24))]
    sources = [pairs.training_rows(), _rows(others[0]), _rows(others[1])]
    parts = [sources[0].batch(np.zeros(0, int)), *(s.batch(np.arange(4)) for s in sources[1:])]
    rows = np.r_[4:8, 12:16]
    loss, shares = c3po.total(policy, data, others, parts, TrainingRows.of(everything).batch(rows))
    loss.backward()
    assert set(shares) == {"near_nll", "rest_nll"}
    assert float(policy.logits.grad.abs().max()) < 1e-12  # type: ignore[attr-defined]


def test_pairs_are_of_the_scope_and_the_feedback_chooses() -> None:
    lines, log = recorder()
    pairs, (near, rest) = method().sets(given())
    assert set(pairs.first.prompts) <= {"prompt 1", "prompt 2"}
    assert {"emoji" in text for text in pairs.first.outputs} == {False}
    assert all("emoji" in text for text in pairs.second.outputs)
    assert set(near.prompts) == {"prompt 3", "prompt 4"} and set(rest.prompts) == {"prompt 5", "prompt 6"}
    assert len(near) == len(rest) == len(pairs)
    method(size=8, epochs=1).train(given(log=log))
    assert {"accuracy", "near_nll", "rest_nll", "loss"} <= set(lines[0])
    coin, _ = method(flips=0.5, size=400).sets(given())
    assert abs(coin.p_first.mean() - 0.5) < 1 / len(coin)


def test_imitation_of_the_chosen_side_is_another_objective() -> None:
    found = emoji(method(objective="sft", soft=0.0, hard=0.0).train(given()))
    assert found[:2].max() < 0.4
    turned = emoji(method(objective="sft", soft=0.0, hard=0.0, flips=1.0).train(given()))
    assert turned[:2].min() > 0.6  # pairs that are turned round are imitated as they are then


def test_imitation_is_a_mean_over_the_tokens_of_the_chosen_side() -> None:
    """It was divided by the tokens of both sides, and so about half as large beside the two constraints."""
    lines, log = recorder()
    method(objective="sft", size=8, epochs=1).train(given(log=log))
    four = pytest.approx(np.log(len(RESPONSES)))  # of one token each, all alike at the start
    assert [lines[0][f"{part}_nll"] for part in ("in_scope", "near", "rest")] == [four] * 3


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="prompts have no column `tusk`; did you mean `task`"):
        method(scope={"tusk": "letter"}).train(given())
    with pytest.raises(UserError, match="no feature `emoju`; did you mean `emoji`"):
        method(feature="emoju").train(given())
    with pytest.raises(UserError, match="a world is needed"):
        method(world=None).train(given())
    with pytest.raises(UserError, match="no prompt in scope"):
        method(scope={"task": "poem"}).train(given())


def test_a_scope_is_a_value_or_several_of_each_column() -> None:
    table = pd.DataFrame({"task": ["a", "b", "c"], "topic": ["x", "x", "y"]})
    assert within(table, {"task": ["a", "c"], "topic": "x"}, True).tolist() == [True, False, False]
    assert within(table, {}, True).all() and not within(table, {}, False).any()


def test_an_experiment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    said = {
        "name": "words",
        "world": "matrix",
        "sft": None,
        "reporter": None,
        "reward_model": None,
        "methods": {"c3po": {"feature": "utility", "scope": {"dataset": "matrix"}, "size": 16, "learning_rate": 0.1}},
        "sizes": {"prompts": 20, "evaluation": 20, "samples": 4},
    }
    run = running.StudyRunner(experiment.from_mapping(said, "words.yaml"), tmp_path / "run").go()
    assert not run.failures
    outputs = pd.read_parquet(tmp_path / "run" / "tables" / "outputs.parquet")
    gold = outputs.groupby("method")["gold"].mean()
    assert gold["c3po"] > gold["sft"]
