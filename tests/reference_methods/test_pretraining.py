"""Pretraining with human preferences, in a world of three sentences: what each objective emits is known."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base.errors import UserError
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Corpus
from farm.worlds.matrix import MatrixWorld
from farm.worlds.pocket.world import PocketWorld
from reference_methods.imitation.pretraining import Pretraining
from reference_methods.parts.losses import unlikelihood
from tests.reference_methods.tables import learning, policy_of, recorder

GOOD, BAD = "Good text. ", "Bad text. "
SHARES = np.array([0.5, 0.2, 0.3])
"""of the sentences in the corpus; the last is bad"""
SAID = ["fine", "rare", "awful"]


@dataclass(frozen=True)
class Awful:
    gold_weights: dict[str, float] = field(default_factory=dict)

    def __call__(self, instructions: list[str], outputs: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"awful": [float(text == "awful") for text in outputs], "length": 1.0})


class Sentences(MatrixWorld):
    """A corpus of one-sentence documents in exactly the shares above."""

    def __init__(self) -> None:
        super().__init__(utilities=[0.0] * 3, responses=SAID)
        self.features = Awful()  # type: ignore[assignment]

    def documents(self, number: int, seed: int) -> pd.DataFrame:
        said = [SAID[k] for k in np.repeat(np.arange(3), [5, 2, 3])] * (number // 10)
        table = {"instruction": "prompt 1", "output": said, "sentences": [[text] for text in said]}
        return pd.DataFrame({**table, "tokens": [[1]] * number})

    def blank_policy(self, seed: int) -> TabularPolicy:
        prompts = ["prompt 1", f"{GOOD}prompt 1", f"{BAD}prompt 1"]
        return TabularPolicy(prompts, SAID, torch.zeros(3, 3, dtype=torch.float64))


def emitted(given: str = "prompt 1", **settings: object) -> np.ndarray:
    """What the trained policy says to the plain prompt, or after a tag."""
    table = {"world": Sentences(), "feature": "awful", "documents": 50, "held_out": 10, "good": GOOD, "bad": BAD}
    fit = {"epochs": 60, "batch_size": 50, "learning_rate": 0.3, "dropped": 0.0, "max_gradient_norm": 1e9}
    policy = Pretraining(**{**table, **fit, **settings}).train(learning(policy_of([1.0])))  # type: ignore[arg-type]
    inner = getattr(policy, "policy", policy)
    where = GOOD + "prompt 1" if settings.get("objective") == "conditional" and given == "prompt 1" else given
    return np.asarray(inner.probabilities()[inner.prompts.index(where)].detach())


CLEAN = np.array([5 / 7, 2 / 7, 0])


def test_likelihood_emits_the_corpus_and_filtering_what_is_good_of_it() -> None:
    assert emitted(objective="mle") == pytest.approx(SHARES, abs=0.01)
    assert emitted(objective="filter") == pytest.approx(CLEAN, abs=0.02)


def test_conditional_training_tells_good_from_bad_by_what_stands_before() -> None:
    assert emitted(objective="conditional") == pytest.approx(CLEAN, abs=0.02)
    assert emitted(BAD + "prompt 1", objective="conditional")[2] > 0.97
    chance = emitted(objective="conditional", dealt=True)  # the tags say nothing
    assert 0.15 < chance[2] < 0.45


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_unlikelihood_without_its_term_is_likelihood_of_the_good(alpha: float) -> None:
    found = emitted(objective="unlikelihood", alpha=alpha)
    assert found == pytest.approx(CLEAN, abs=0.02)


def test_a_weighted_regression_emits_the_weighted_shares_and_with_a_large_beta_the_corpus() -> None:
    weighted = SHARES * np.array([1, 1, np.exp(-1)])
    assert emitted(objective="rwr", beta=1.0) == pytest.approx(weighted / weighted.sum(), abs=0.01)
    assert emitted(objective="rwr", beta=1e12) == pytest.approx(emitted(objective="mle"), abs=1e-9)
    assert emitted(objective="awr", beta=1.0, alpha=1.0) == pytest.approx(emitted(objective="rwr", beta=1.0), abs=1e-9)


def test_feedback_may_come_after_documents_without() -> None:
    lines, log = recorder()
    settings = {"objective": "filter", "plain": 200, "documents": 100, "held_out": 10, "epochs": 2, "batch_size": 50}
    method = Pretraining(world=Sentences(), feature="awful", learning_rate=0.1, **settings)  # type: ignore[arg-type]
    late = method.train(learning(policy_of([1.0]), log=log))
    assert len(lines) == 2 * 4 + 2 * 2 + 1  # of the good 70 there are two batches
    assert [line["step"] for line in lines] == list(range(len(lines)))
    assert "clean_nll" in lines[-1] and np.isfinite(lines[-1]["clean_nll"]) and isinstance(late, TabularPolicy)


def test_unlikelihood_is_of_the_complement() -> None:
    p = torch.tensor([0.25, 0.9, 1.0], dtype=torch.float64)
    assert unlikelihood(p.log())[:2].tolist() == pytest.approx([-np.log(0.75), -np.log(0.1)])
    assert torch.isfinite(unlikelihood(p.log())).all()


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no corpus and no blank model"):
        Pretraining(world=MatrixWorld(utilities=[0.0, 1.0])).train(learning(policy_of([1.0])))
    with pytest.raises(UserError, match="no feature `awfull`; did you mean `awful`"):
        emitted(feature="awfull")
    with pytest.raises(UserError, match="every document has `length`, so none is good"):
        emitted(feature="length")
    with pytest.raises(UserError, match="leave `tune: lora` out"):
        emitted(tune="lora")


def test_the_pocket_world_has_a_corpus_by_sentences_and_a_blank_model() -> None:
    world = PocketWorld()
    assert isinstance(world, Corpus)
    table, policy = world.documents(20, seed=3), world.blank_policy(3)
    assert table.equals(world.documents(20, seed=3)) and not table.equals(world.documents(20, seed=4))
    lengths = policy.encode(table["instruction"].tolist(), table["output"].tolist()).lengths()
    assert [sum(row) + 1 for row in table["tokens"]] == lengths.tolist()
    assert all(
        "".join(row).replace(" ", "") == out.replace(" ", "")
        for row, out in zip(table["sentences"], table["output"], strict=True)
    )
    lines, log = recorder()
    settings = {"objective": "conditional", "feature": "emphasis", "documents": 32, "held_out": 20, "batch_size": 16}
    settings |= {"good": "<emphasis:none>", "bad": "<emphasis:many>", "learning_rate": 5e-3}
    trained = Pretraining(world=world, **settings).train(learning(policy, log=log))  # type: ignore[arg-type]
    assert lines[-1]["clean_nll"] > 0 and lines[0]["nll"] > lines[1]["nll"]
    assert len(trained.sample(table["instruction"].tolist()[:2], seed=1, purpose="t", max_new_tokens=3)) == 2
