"""The loop that plays with any policy: sampled on a table towards the equilibrium, and on a language model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import UserError
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Learning, Policy
from farm.tables.records import PairIds, annotation_table
from reference_methods.games.dno import DNO
from reference_methods.games.egpo import EGPO
from reference_methods.games.gpo import GPO
from reference_methods.games.inpo import INPO
from reference_methods.games.nash_ema import NashEMA
from reference_methods.games.nash_md import NashMD
from reference_methods.games.nash_mp import NashMP
from reference_methods.games.online_dpo import OnlineDPO
from reference_methods.games.online_ipo import OnlineIPO
from reference_methods.games.self_play import SelfPlay
from reference_methods.games.spo import SPO
from reference_methods.games.sppo import SPPO
from reference_methods.games.xpo import XPO
from reference_methods.models.general_preference_model import GeneralPreferenceModel
from reference_methods.models.preference_model import PairwisePreferenceModel, PairwiseTable
from reference_methods.parts.games.duels import Group
from reference_methods.parts.games.feedback import AskedFeedback
from reference_methods.parts.games.gap import GapProbe
from reference_methods.parts.games.matrix_game import duality_gap, equilibrium
from reference_methods.parts.games.table import Table, play
from reference_methods.parts.games.trainer import GameTrainer
from reference_methods.parts.games.training import Game
from tests.games.conftest import asker
from tests.policies.conftest import PROMPTS, make_policy

BETA = 0.3
SMALL: dict[str, Any] = {"beta": BETA, "steps": 60, "prompts_per_step": 48, "samples_per_prompt": 4}
SMALL |= {"learning_rate": 0.05, "schedule": "linear", "warm_up": 0.0}


@dataclass
class MatrixAnnotator:
    """Verdicts drawn from a preference matrix over the outputs."""

    preferences: Floats
    responses: list[str]
    missing: float = 0.0
    asked: list[int] = field(default_factory=list)

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        self.asked.append(len(pairs))
        place = {text: i for i, text in enumerate(self.responses)}
        p = self.preferences[pairs["output_1"].map(place), pairs["output_2"].map(place)]
        ids = PairIds(pairs)
        draw = rng.uniform(seed, "label", ids.pair, replicate)
        draw = np.where(ids.swapped, 1 - draw, draw)
        first = np.where(ids.identical, 1.5, np.where(draw < p, 1.0, 2.0))
        silent = rng.uniform(seed, "silent", ids.pair, replicate) < self.missing
        status = np.where(silent, "refused", "ok").astype(object)
        return annotation_table(pairs, "matrix", np.where(silent, np.nan, first), p, seed=seed, status=status)


def table_learning(cycle: tuple[Floats, Floats], prompts: int = 1, missing: float = 0.0, seed: int = 1) -> Learning:
    preferences, reference = cycle
    responses = ["rock", "paper", "scissors"]
    names = [f"x{i}" for i in range(prompts)]
    policy = TabularPolicy.from_probabilities(names, responses, reference)
    table = pd.DataFrame({"instruction": names})
    return Learning(seed, policy, table, asked={"pairs": asker(MatrixAnnotator(preferences, responses, missing), seed)})


@dataclass(frozen=True)
class Known:
    """A preference model that is right, fitted to nothing."""

    preferences: tuple[tuple[float, ...], ...]
    needs = frozenset({"pairs"})

    @classmethod
    def of(cls, preferences: Floats) -> Known:
        return cls(tuple(map(tuple, preferences.tolist())))

    def train(self, learning: Learning) -> PairwiseTable:
        assert isinstance(learning.policy, TabularPolicy)
        model = PairwiseTable(learning.policy)
        p = np.array(self.preferences)
        with torch.no_grad():
            model.table.copy_(torch.from_numpy(np.log(p / (1 - p)) / 2))
        return model


def probabilities(policy: Policy) -> Floats:
    assert isinstance(policy, TabularPolicy)
    return policy.probabilities().detach().double().numpy()[0]


REGULARISED = [
    SelfPlay(**SMALL),
    NashMD(**SMALL, mixture=0.1),
    NashEMA(**SMALL, decay=0.5),
    OnlineIPO(**SMALL),
    EGPO(**SMALL),
    NashMP(**SMALL),
    INPO(**SMALL),
]


@pytest.mark.parametrize("game", REGULARISED, ids=lambda game: type(game).__name__)
def test_samples_lead_to_the_equilibrium(cycle: tuple[Floats, Floats], game: Game) -> None:
    preferences, reference = cycle
    learned = probabilities(replace(game, preference_model=Known.of(preferences)).train(table_learning(cycle)))
    star = equilibrium(preferences, reference, BETA)
    start = float(duality_gap(preferences, reference, BETA, reference))
    found = float(duality_gap(preferences, reference, BETA, learned))
    assert found < start / 8, (learned, star)
    assert np.abs(learned - star).sum() / 2 < 0.06


@pytest.mark.parametrize("game", [SPO(**SMALL), DNO(**SMALL), SPPO(**SMALL), OnlineDPO(**SMALL), XPO(**SMALL)])
def test_a_transitive_world_leads_every_method_to_its_best_response(game: Game) -> None:
    utilities = np.array([0.0, 1.0, 2.0])
    preferences = 1 / (1 + np.exp(utilities[None] - utilities[:, None]))
    game = replace(game, preference_model=Known.of(preferences))
    learned = probabilities(game.train(table_learning((preferences, np.array([0.5, 0.3, 0.2])))))
    assert (learned[2] > 0.4 and learned[2] > learned[1] > learned[0]) or learned[2] > 0.9


def test_online_dpo_finds_its_closed_form_in_a_transitive_world() -> None:
    utilities, reference = np.array([0.0, 0.5, 1.0]), np.array([0.5, 0.3, 0.2])
    preferences = 1 / (1 + np.exp(utilities[None] - utilities[:, None]))
    known = reference * np.exp(utilities / 0.5)
    game = OnlineDPO(**{**SMALL, "beta": 0.5, "steps": 100}, preference_model=Known.of(preferences))
    learned = probabilities(game.train(table_learning((preferences, reference))))
    np.testing.assert_allclose(learned, known / known.sum(), atol=0.03)


def test_optimism_finds_sooner_what_the_reference_hardly_writes() -> None:
    """The best of 8 responses has a thousandth of the reference: the more optimism, the sooner it has a half."""
    utilities = np.array([0.0] * 7 + [2.0])
    preferences = 1 / (1 + np.exp(utilities[None] - utilities[:, None]))
    table = Table.of(preferences, np.array([0.999 / 7] * 7 + [0.001]))
    found = []
    for optimism in (0.0, 0.01, 0.1):
        best = [policy[0, -1] for policy in play(XPO(beta=0.1, optimism=optimism), table, 100, 0.3)]
        found.append(int(np.argmax(np.array(best) > 0.5)))
    assert 0 < found[2] < found[1] < found[0]


ALL = [
    *REGULARISED,
    SPO(**SMALL),
    DNO(**SMALL),
    SPPO(**SMALL),
    OnlineDPO(**SMALL),
    XPO(**SMALL),
]


@pytest.mark.parametrize("game", ALL, ids=lambda game: type(game).__name__)
def test_queries_are_counted_and_draws_keyed(cycle: tuple[Floats, Floats], game: Game) -> None:
    game = replace(game, steps=2, prompts_per_step=6)
    first, again = table_learning(cycle, 3), table_learning(cycle, 3)
    logs: list[dict[str, float]] = []
    one = game.train(replace(first, log=logs.append))
    two = game.train(again)
    torch.testing.assert_close(next(iter(one.parameters())), next(iter(two.parameters())), rtol=0, atol=0)
    each = 6 * 4 * (2 if game.is_extragradient else 1) / (2 if game.reference_samples else 1)
    assert logs[-1]["queries"] == sum(first.asked["pairs"].giver.asked) == 2 * each
    other = game.train(table_learning(cycle, 3, seed=2))
    assert not torch.equal(next(iter(one.parameters())), next(iter(other.parameters())))


def test_refusals_are_left_out_and_counted(cycle: tuple[Floats, Floats]) -> None:
    logs: list[dict[str, float]] = []
    for game in (SelfPlay(**SMALL), INPO(**SMALL), NashMD(**SMALL)):
        few = replace(game, steps=8, prompts_per_step=24)
        learned = probabilities(few.train(replace(table_learning(cycle, 24, missing=0.4), log=logs.append)))
        assert np.isfinite(learned).all() and np.abs(learned - cycle[1]).max() > 1e-3
        assert logs[-1]["unanswered"] / logs[-1]["queries"] == pytest.approx(0.4, abs=0.06)
    nobody = replace(SelfPlay(**SMALL), steps=2)
    untouched = nobody.train(table_learning(cycle, missing=1.0))
    np.testing.assert_allclose(probabilities(untouched), cycle[1], atol=1e-6)


def test_a_pair_that_is_asked_again_gets_a_new_draw(cycle: tuple[Floats, Floats]) -> None:
    learning = table_learning(cycle, seed=3)
    samples = learning.policy.encode(["x0"] * 60, ["rock"] * 60)
    other = learning.policy.encode(["x0"] * 60, ["paper"] * 60)
    feedback = AskedFeedback(learning)
    found = np.r_[feedback(samples, other), feedback(samples, other)]
    assert found.mean() == pytest.approx(0.8, abs=0.1)
    assert np.abs(found[:60] - found[60:]).max() == 1
    again = AskedFeedback(learning, "again")
    np.testing.assert_array_equal(again(samples, other), found[:60])
    soft = AskedFeedback(learning, soft=True)
    np.testing.assert_allclose(soft(other, samples), 0.2)


def test_a_preference_model_may_decide_instead_of_the_annotator(cycle: tuple[Floats, Floats]) -> None:
    preferences, reference = cycle
    responses = ["rock", "paper", "scissors"]
    rows = [("x0", responses[i], responses[j], 2 - preferences[i, j]) for i in range(3) for j in range(3) if i != j]
    pairs = pd.DataFrame(rows * 8, columns=["instruction", "output_1", "output_2", "preference"])
    learning = replace(table_learning(cycle), asked={}, feedback={"pairs": pairs})
    fit: dict[str, Any] = {"epochs": 60, "batch_size": 48, "learning_rate": 0.05, "held_out_share": 0}
    for model in (GeneralPreferenceModel(planes=2, **fit), PairwisePreferenceModel(**fit)):
        game = EGPO(**{**SMALL, "steps": 40}, preference_model=model)
        assert game.needs == {"pairs"} and not game.asks
        learned = probabilities(game.train(learning))
        gap = duality_gap(preferences, reference, BETA, learned)
        assert gap < duality_gap(preferences, reference, BETA, reference) / 5
    gpo = GPO(**{**SMALL, "steps": 10}, preference_model=GeneralPreferenceModel(planes=2, **fit))
    assert np.isfinite(probabilities(gpo.train(learning))).all()


def test_mistakes_are_named(cycle: tuple[Floats, Floats]) -> None:
    learning = table_learning(cycle)
    with pytest.raises(UserError, match="asks for pairs and nobody is there"):
        EGPO(**SMALL).train(replace(learning, asked={}))
    with pytest.raises(UserError, match="preference_model"):
        GPO(**SMALL).train(learning)
    for wrong, said in (
        ({"beta": -1.0}, "beta"),
        ({"samples_per_prompt": 1}, "samples_per_prompt"),
        ({"duels": 4}, "duels"),
        ({"temperature": 0.0}, "temperature"),
    ):
        with pytest.raises(ValueError, match=said):
            EGPO(**{**SMALL, **wrong})
    with pytest.raises(ValueError, match="step_size beta"):
        INPO(beta=1.0, step_size=2.0)


class LikesAWord:
    """Prefers the response with more of one word."""

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        counts = [pairs[f"output_{i}"].str.split().map(lambda words: words.count("w5")) for i in (1, 2)]
        p = np.where(counts[0] == counts[1], 0.5, np.where(counts[0] > counts[1], 1.0, 0.0))
        return annotation_table(pairs, "word", 2 - p, p, seed=seed)


@pytest.mark.parametrize("game", ALL, ids=lambda game: type(game).__name__)
def test_every_method_learns_on_a_language_model(game: Game) -> None:
    policy = make_policy()
    prompts = pd.DataFrame({"instruction": PROMPTS})

    def count(p: Policy) -> float:
        return float(np.mean([t.split().count("w5") for t in p.sample(PROMPTS * 20, seed=9, purpose="look").outputs]))

    game = replace(game, beta=0.02, steps=12, prompts_per_step=24, learning_rate=5e-3, micro_batch_tokens=10_000)
    if hasattr(game, "step_size"):
        game = replace(game, epochs=2)
    learned = game.train(Learning(1, policy, prompts, asked={"pairs": asker(LikesAWord())}))
    assert count(learned) > count(policy) + 0.1


def written(game: Game, policy: Policy, learning: Learning) -> Group:
    """What is written in the first step."""
    with GameTrainer(game, learning, policy) as trainer:
        return next(trainer.groups())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_likelihoods_that_came_with_the_samples_are_those_of_a_pass_over_them(temperature: float) -> None:
    policy, prompts = make_policy(), pd.DataFrame({"instruction": PROMPTS})
    reference = make_policy()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.1)
    for game in (OnlineDPO(**SMALL, temperature=temperature), XPO(**SMALL, temperature=temperature)):
        few = replace(game, steps=1, prompts_per_step=6, minibatches=2)
        batch = written(few, policy, Learning(1, reference, prompts, asked={"pairs": asker(LikesAWord())}))
        assert batch.from_reference == (2 if game.reference_samples else 0)
        for found, whose in ((batch.start, policy), (batch.reference, reference)):
            with torch.no_grad():
                expected = whose.log_probabilities(batch.samples, temperature)[0].sum(1)
            torch.testing.assert_close(found.reshape(-1), expected, atol=1e-4, rtol=1e-5)


def test_samples_of_a_cut_distribution_are_passed_over_again() -> None:
    policy, prompts = make_policy().with_settings(top_k=3), pd.DataFrame({"instruction": PROMPTS})
    game = OnlineDPO(steps=1, prompts_per_step=6, epochs=2)
    batch = written(game, policy, Learning(1, policy, prompts, asked={"pairs": asker(LikesAWord())}))
    with torch.no_grad():
        expected = policy.log_probabilities(batch.samples)[0].sum(1)
    torch.testing.assert_close(batch.start.reshape(-1), expected, atol=1e-4, rtol=1e-5)
    drawn = torch.tensor([float(values.sum()) for values in batch.samples.log_probabilities])
    assert (drawn - expected).abs().max() > 0.1


def test_a_cut_response_loses_to_one_that_ended() -> None:
    """Whatever the annotator says, who is asked of the other duels alone."""

    @dataclass
    class LikesCut:
        asked: int = 0

        def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
            self.asked += len(pairs)
            return annotation_table(pairs, "cut", np.full(len(pairs), 1.5), np.full(len(pairs), 0.5), seed=seed)

    prompts, found = pd.DataFrame({"instruction": PROMPTS}), {}
    for lose in (True, False):
        annotator, lines = LikesCut(), list[dict[str, float]]()
        game = OnlineDPO(steps=6, prompts_per_step=12, learning_rate=3e-2, cut_responses_lose=lose, max_new_tokens=6)
        learned = game.train(Learning(1, make_policy(), prompts, asked={"pairs": asker(annotator)}, log=lines.append))
        samples = learned.sample(PROMPTS * 20, seed=9, purpose="look", max_new_tokens=6)
        found[lose] = float(np.mean([reason != "stop" for reason in samples.finish_reason]))
        assert annotator.asked == lines[-1]["queries"]
    assert found[True] < found[False] - 0.1
    with pytest.raises(ValueError, match="scores"):
        GPO(cut_responses_lose=True)


@pytest.mark.parametrize("game", [SPPO(), XPO(), INPO(), EGPO()], ids=lambda game: type(game).__name__)
def test_the_only_pass_on_a_batch_also_tells_where_it_started(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(game, steps=2, prompts_per_step=6, learning_rate=1e-3, micro_batch_tokens=100)
    ends, logs = [], []
    for one_pass in (True, False):
        assert few.one_pass
        monkeypatch.setattr(Game, "one_pass", property(lambda self, one_pass=one_pass: one_pass))
        lines: list[dict[str, float]] = []
        learning = Learning(
            1,
            make_policy(),
            pd.DataFrame({"instruction": PROMPTS}),
            asked={"pairs": asker(LikesAWord())},
            log=lines.append,
        )
        ends.append(torch.cat([p.detach().reshape(-1) for p in few.train(learning).parameters()]))
        logs.append([[line[name] for name in ("loss", "kl", "win_rate")] for line in lines])
        monkeypatch.undo()
    torch.testing.assert_close(ends[0], ends[1], atol=2e-5, rtol=1e-3)
    np.testing.assert_allclose(logs[0], logs[1], atol=1e-5, rtol=1e-4)


def test_sampler_and_trainer_are_compared_without_a_pass_of_their_own() -> None:
    lines: list[dict[str, float]] = []
    prompts = pd.DataFrame({"instruction": PROMPTS})
    for game in (OnlineDPO(**SMALL), XPO(**SMALL), EGPO(**SMALL)):
        few = replace(game, steps=2, prompts_per_step=6)
        few.train(Learning(1, make_policy(), prompts, asked={"pairs": asker(LikesAWord())}, log=lines.append))
    assert len(lines) == 6
    assert all(1 <= line["sampler_error"] < 1.001 for line in lines)


def test_a_sampler_that_is_not_the_policy_is_noticed_before_the_first_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of the policy's own code that come with other log-probabilities, as after a wrong hand-over."""
    policy, prompts = make_policy(), pd.DataFrame({"instruction": PROMPTS})
    sample = type(policy).sample

    def wrong(self: Any, *given: Any, **settings: Any) -> Any:
        found = sample(self, *given, **settings)
        return replace(found, log_probabilities=[values - 0.1 for values in found.log_probabilities])

    monkeypatch.setattr(type(policy), "sample", wrong)
    learning = Learning(1, policy, prompts, asked={"pairs": asker(LikesAWord())})
    with pytest.warns(UserWarning, match="sampler_error"), pytest.raises(RuntimeError, match="nats a token apart"):
        OnlineDPO(**SMALL).train(learning)


def test_micro_batches_change_nothing_on_a_language_model() -> None:
    policy = make_policy()
    prompts = pd.DataFrame({"instruction": PROMPTS})
    weights = []
    for tokens in (60, 10_000):
        game = EGPO(steps=1, prompts_per_step=6, learning_rate=1e-3, micro_batch_tokens=tokens)
        learned = game.train(Learning(1, policy, prompts, asked={"pairs": asker(LikesAWord())}))
        weights.append(torch.cat([p.detach().reshape(-1) for p in learned.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=2e-5, rtol=1e-3)


def test_the_gap_is_measured_on_the_annotator(cycle: tuple[Floats, Floats]) -> None:
    """Where responses repeat, as in a table, every repetition is a new question, so this is small."""
    learning = table_learning(cycle, prompts=10)
    probe = GapProbe(learning, [f"x{i}" for i in range(10)], samples=4)
    assert 0 < probe(learning.policy, step=0) < 1
    game = EGPO(**SMALL, gap_every=20, preference_model=PairwisePreferenceModel())
    assert game.needs == game.asks == {"pairs"}
