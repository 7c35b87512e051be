"""Every method on a table whose optimum is known. The code is the one that trains language models."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base.errors import UserError
from farm.policies import load
from reference_methods.imitation.feedme import FeedME
from reference_methods.imitation.sft import SFT
from reference_methods.lists.lipo import LiPO
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.alpaca_farm_quark import AlpacaFarmQuark
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from reference_methods.online.superhf import SuperHF
from reference_methods.pairs.cpl import CPL
from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.ipo import IPO
from reference_methods.pairs.kto import KTO
from reference_methods.pairs.orpo import ORPO
from reference_methods.pairs.simpo import SimPO
from reference_methods.pairs.slic import SLiC
from reference_methods.selection.best_of_n import BestOfN, BestOfNPolicy
from reference_methods.selection.expert_iteration import ExpertIteration
from reference_methods.selection.raft import RAFT
from tests.reference_methods.tables import (
    REFERENCE,
    all_pairs,
    best_of,
    bradley_terry,
    distance,
    frequencies,
    learned,
    learning,
    policy_of,
    recorder,
    scorer_of,
    softmax,
    tilt,
)

UTILITIES = np.array([0.3, -0.5, 1.1])
EXACT = {"epochs": 400, "batch_size": 10_000, "learning_rate": 0.05, "schedule": "cosine", "max_gradient_norm": 1e6}
"""full batches of exact expectations: nothing is left to chance"""


# --- SFT and FeedME ------------------------------------------------------------------------------------------------


def test_sft_fits_the_frequencies_of_the_demonstrations():
    outputs = ["response 0"] * 2 + ["response 1"] * 5 + ["response 2"] * 3
    demonstrations = pd.DataFrame({"instruction": "prompt 0", "output": outputs})
    start = policy_of(REFERENCE)
    found = SFT(**EXACT).train(learning(start, demonstrations=demonstrations))
    assert distance(learned(found), np.array([0.2, 0.5, 0.3])) < 1e-3
    assert distance(learned(start), REFERENCE) < 1e-12  # the policy it was given is left alone


def test_feedme_is_the_linear_part_of_the_tilt():
    p = np.array([[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]])
    copies = np.round(100 * np.outer(REFERENCE, REFERENCE))  # pairs of two samples of the reference
    found = FeedME(**EXACT).train(learning(policy_of(REFERENCE), feedback={"pairs": all_pairs(p, copies)}))
    expected = REFERENCE * (1 + 2 * (p @ REFERENCE - 0.5))
    assert expected.sum() == pytest.approx(1)
    assert distance(learned(found), expected) < 1e-3


def test_feedme_counts_a_tie_for_both():
    tie = all_pairs(np.full((3, 3), 0.5), np.ones((3, 3)))
    found = FeedME(**EXACT).train(learning(policy_of(REFERENCE), feedback={"pairs": tie}))
    assert distance(learned(found), np.full(3, 1 / 3)) < 1e-3


# --- DPO -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_reaches_the_tilt_by_the_utility(beta):
    log, record = recorder()
    pairs = all_pairs(bradley_terry(UTILITIES * beta * 2))
    found = DPO(beta=beta, **EXACT).train(
        replace(learning(policy_of(REFERENCE), feedback={"pairs": pairs}), log=record)
    )
    assert distance(learned(found), tilt(REFERENCE, UTILITIES * beta * 2, beta)) < 1e-3
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert log[0]["margin"] == log[0]["chosen_log_ratio"] == 0
    assert log[0]["accuracy"] == 0.5  # undecided


def test_robust_dpo_finds_the_clean_optimum_under_flips_and_dpo_does_not():
    pairs = all_pairs(bradley_terry(UTILITIES, flip=0.25))
    clean = tilt(REFERENCE, UTILITIES, 0.5)
    given = learning(policy_of(REFERENCE), feedback={"pairs": pairs})
    robust = DPO(beta=0.5, label_smoothing=0.25, robust=True, **EXACT).train(given)
    assert distance(learned(robust), clean) < 1e-3
    plain = DPO(beta=0.5, **EXACT).train(given)
    assert distance(learned(plain), clean) > 0.1


def test_dpo_notices_a_reference_that_is_not_where_it_starts():
    class Wrong(type(policy_of(REFERENCE))):
        def copy(self):
            return policy_of(REFERENCE[::-1].copy())

    start = policy_of(REFERENCE)
    start.__class__ = Wrong
    with pytest.raises(RuntimeError, match=r"before the first update loss must be 0\.6931"):
        DPO(beta=1).train(learning(start, feedback={"pairs": all_pairs(bradley_terry(UTILITIES))}))


# --- reward model --------------------------------------------------------------------------------------------------


def fitted(p: np.ndarray, **settings: float) -> np.ndarray:
    model = RewardModel(held_out_share=0, calibration_samples=0, **{**EXACT, **settings})
    scorer = model.train(learning(policy_of(REFERENCE), feedback={"pairs": all_pairs(p)}))
    return scorer.table.detach().numpy()[0]


def test_reward_model_recovers_utility_differences():
    scores = fitted(bradley_terry(UTILITIES))
    assert np.allclose(scores - scores[0], UTILITIES - UTILITIES[0], atol=2e-3)


@pytest.mark.parametrize(("gap", "shrunk"), [(1.0, 0.471), (2.0, 0.802), (50.0, math.log(3))])
def test_a_quarter_of_flips_saturates_the_scores_at_ln_3(gap, shrunk):
    scores = fitted(bradley_terry(np.array([0, gap]), flip=0.25))
    assert scores[1] - scores[0] == pytest.approx(shrunk, abs=2e-3)


def test_scores_are_standardised_on_samples_of_the_policy():
    start = policy_of(REFERENCE)
    given = learning(start, feedback={"pairs": all_pairs(bradley_terry(UTILITIES))})
    scorer = RewardModel(**EXACT, held_out_share=0, calibration_samples=4000).train(given)
    with torch.no_grad():
        scores = scorer.scores(start.encode(["prompt 0"] * 3, start.responses)).numpy()
    mean = REFERENCE @ scores
    assert mean == pytest.approx(0, abs=0.05)
    assert np.sqrt(REFERENCE @ (scores - mean) ** 2) == pytest.approx(1, abs=0.05)


def test_held_out_pairs_are_never_trained_on_and_both_orders_stay_together():
    log, record = recorder()
    k = 12
    p = bradley_terry(np.linspace(-3, 3, k))
    given = replace(learning(policy_of(np.full(k, 1 / k)), feedback={"pairs": all_pairs((p > 0.5) * 1.0)}), log=record)
    RewardModel(**EXACT, held_out_share=0.2, calibration_samples=0).train(given)
    assert log[-1]["held_out_pairs"] % 2 == 0 and log[-1]["held_out_pairs"] > 0
    assert log[-1]["held_out_accuracy"] > 0.8
    assert log[-1]["step"] == len(log) - 1


def test_a_reward_model_that_learned_nothing_cannot_be_standardised():
    ties = all_pairs(np.full((3, 3), 0.5))
    with pytest.raises(UserError, match="same score"):
        RewardModel(held_out_share=0).train(learning(policy_of(REFERENCE), feedback={"pairs": ties}))


# --- best-of-n and expert iteration --------------------------------------------------------------------------------

REWARDS = np.array([0.1, 0.5, 0.9])


@pytest.mark.parametrize("n", [1, 2, 4])
def test_best_of_n_has_the_known_distribution(n):
    best = BestOfN(n=n).train(learning(policy_of(REFERENCE), models={"reward_model": scorer_of(REWARDS)}))
    samples = best.sample(["prompt 0"] * 8000, seed=1, purpose="test")
    assert distance(frequencies(samples, 3), best_of(REFERENCE, REWARDS, n)) < 0.02


def test_best_of_n_wins_n_of_n_plus_1_and_keeps_to_its_bound():
    k, n = 2000, 4  # so many responses that equal draws hardly happen
    rewards = np.random.default_rng(0).permutation(k) / k
    uniform = np.full(k, 1 / k)
    law = best_of(uniform, rewards, n)
    bound = BestOfNPolicy(policy_of(uniform), scorer_of(rewards), n).kl_bound
    divergence = float((law * np.log(np.maximum(law, 1e-300) / uniform)).sum())
    assert bound == pytest.approx(0.636, abs=1e-3)
    assert divergence <= bound and divergence == pytest.approx(bound, abs=2e-3)
    best = BestOfN(n=n).train(learning(policy_of(uniform), models={"reward_model": scorer_of(rewards)}))
    one = best.sample(["prompt 0"] * 3000, seed=1, purpose="best")
    other = policy_of(uniform).sample(["prompt 0"] * 3000, seed=1, purpose="plain")
    won = [rewards[a[0]] > rewards[b[0]] for a, b in zip(one.response_tokens, other.response_tokens, strict=True)]
    assert np.mean(won) == pytest.approx(n / (n + 1), abs=0.02)


def test_more_candidates_are_a_superset():
    policy, scorer = policy_of(np.full(50, 0.02)), scorer_of(np.random.default_rng(0).normal(size=50))
    chosen = []
    for n in (1, 2, 4, 8, 16):
        samples = BestOfNPolicy(policy, scorer, n).sample(["prompt 0"], seed=3, purpose="test")
        chosen.append(scorer.scores(samples).item())
    assert all(later >= earlier for earlier, later in pairwise(chosen))


def test_drawing_in_chunks_changes_no_choice(monkeypatch):
    best = BestOfNPolicy(policy_of(np.full((5, 50), 0.02), prompts=5), scorer_of(np.arange(50.0), prompts=5), 4)
    prompts = [f"prompt {i}" for i in (3, 1, 3, 0, 4, 1, 2, 3)]
    reported: list[int] = []
    whole = best.sample(prompts, seed=3, purpose="test", progress=reported.append)
    assert sum(reported) == len(prompts)
    assert whole.prompts == prompts
    monkeypatch.setattr("reference_methods.selection.best_of_n.CANDIDATES_AT_ONCE", 8)
    assert best.sample(prompts, seed=3, purpose="test").outputs == whole.outputs


def test_best_of_n_is_saved_and_loaded(tmp_path):
    best = BestOfNPolicy(policy_of(REFERENCE), scorer_of(REWARDS), 4)
    best.save(tmp_path / "model")
    again = load(tmp_path / "model")
    prompts = ["prompt 0"] * 50
    assert again.sample(prompts, seed=1, purpose="x").outputs == best.sample(prompts, seed=1, purpose="x").outputs


def test_expert_iteration_becomes_best_of_n():
    start = policy_of(np.tile(REFERENCE, (50, 1)), prompts=50)
    given = learning(start, prompts=50, models={"reward_model": scorer_of(REWARDS, prompts=50)})
    log, record = recorder()
    found = ExpertIteration(n=3, prompts=5000, **{**EXACT, "epochs": 200}).train(replace(given, log=record))
    average = found.probabilities().mean(0).detach().numpy()
    assert distance(average, best_of(REFERENCE, REWARDS, 3)) < 0.02
    assert [m["step"] for m in log] == list(range(201))


def test_two_rounds_of_expert_iteration_are_best_of_n_squared():
    start = policy_of(REFERENCE)
    given = learning(start, models={"reward_model": scorer_of(REWARDS)})
    found = ExpertIteration(n=2, rounds=2, prompts=6000, **{**EXACT, "epochs": 200}).train(given)
    assert distance(learned(found), best_of(REFERENCE, REWARDS, 4)) < 0.02


# --- PPO and RLOO --------------------------------------------------------------------------------------------------

BANDIT = np.array([0.0, 0.5, 1.0])
ONLINE = {"steps": 150, "rollouts": 1024, "learning_rate": 0.1, "warm_up": 0.0}


def test_ppo_converges_to_the_tilt():
    log, record = recorder()
    given = replace(learning(policy_of(REFERENCE), models={"reward_model": scorer_of(BANDIT)}), log=record)
    found = PPO(beta=0.5, value_learning_rate=0.05, **ONLINE).train(given)
    optimum = tilt(REFERENCE, BANDIT, 0.5)
    assert optimum == pytest.approx([0.179, 0.292, 0.529], abs=1e-3)
    assert distance(learned(found), optimum) < 0.02
    assert log[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert log[0]["reward"] == pytest.approx(REFERENCE @ BANDIT, abs=0.05)
    assert [m["step"] for m in log] == list(range(150))


def test_rloo_converges_to_the_tilt():
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(BANDIT)})
    found = RLOO(beta=0.5, **ONLINE).train(given)
    assert distance(learned(found), tilt(REFERENCE, BANDIT, 0.5)) < 0.02


@pytest.mark.parametrize("method", [PPO, RLOO])
def test_learning_on_policy_at_another_temperature_is_noticed(method):
    class Forgetful(type(policy_of(REFERENCE))):
        def log_probabilities(self, samples, temperature=1.0):
            return super().log_probabilities(samples)

        def copy(self):
            return Forgetful(self.prompts, self.responses, self.logits)

    start = Forgetful(["prompt 0"], ["a", "b", "c"], torch.tensor([[1.0, 0.0, -1.0]]))
    given = learning(start, models={"reward_model": scorer_of(BANDIT)})
    with pytest.raises(RuntimeError, match="before the first update"):
        method(temperature=0.5, rollouts=64).train(given)


def test_the_gradient_of_a_group_is_unbiased():
    """The leave-one-out gradient, averaged over many groups, is the exact gradient of E r - beta KL."""
    start = policy_of([0.2, 0.5, 0.3])
    rewards, beta, reference = BANDIT, 0.3, REFERENCE
    pi = learned(start)
    total = rewards - beta * np.log(pi / reference)
    exact = pi * (total - pi @ total)
    from reference_methods.parts.advantages import leave_one_out

    samples = start.sample(["prompt 0"] * 40_000, seed=1, purpose="test")
    actions = np.array([int(t[0]) for t in samples.response_tokens])
    advantages = leave_one_out(torch.from_numpy(total[actions]), 4)
    new, _ = start.log_probabilities(samples)
    (-(advantages * new[:, 0]).mean()).backward()
    assert np.allclose(-start.logits.grad.numpy()[0], exact, atol=5e-3)


# --- what all methods owe ------------------------------------------------------------------------------------------

METHODS = {
    "sft": SFT(batch_size=4),
    "feedme": FeedME(batch_size=4),
    "dpo": DPO(batch_size=4, learning_rate=0.01),
    "ipo": IPO(batch_size=4, learning_rate=0.01),
    "kto": KTO(batch_size=4, learning_rate=0.01),
    "slic": SLiC(batch_size=4, learning_rate=0.01),
    "orpo": ORPO(batch_size=4, learning_rate=0.01),
    "simpo": SimPO(batch_size=4, learning_rate=0.01),
    "cpl": CPL(batch_size=4, learning_rate=0.01),
    "reward_model": RewardModel(batch_size=4, learning_rate=0.01),
    "best_of_n": BestOfN(n=4),
    "expert_iteration": ExpertIteration(n=4, batch_size=2),
    "ppo": PPO(steps=3, rollouts=16, learning_rate=0.01),
    "rloo": RLOO(steps=3, rollouts=16, learning_rate=0.01),
    "grpo": GRPO(steps=3, rollouts=16, samples_per_prompt=4, learning_rate=0.01),
    "lipo": LiPO(list_size=4, batch_size=3, learning_rate=0.01),
    "superhf": SuperHF(steps=3, rollouts=16, samples_per_prompt=4, learning_rate=0.01),
    "raft": RAFT(n=4, stages=2, prompts=8, batch_size=4, learning_rate=0.01),
    "best_quantile": AlpacaFarmQuark(steps=3, rollouts=16, learning_rate=0.01),
}


def everything(seed: int = 1, shuffled: bool = False):
    policy = policy_of(np.tile(REFERENCE, (6, 1)), prompts=6)
    p = bradley_terry(UTILITIES)
    pairs = pd.concat([all_pairs(p, prompt=f"prompt {i}") for i in range(6)], ignore_index=True)
    demonstrations = pairs[["instruction", "output_1"]].rename(columns={"output_1": "output"})
    if shuffled:
        pairs, demonstrations = pairs.sample(frac=1, random_state=7), demonstrations.sample(frac=1, random_state=8)
    scorer = scorer_of(UTILITIES, prompts=6)
    return learning(
        policy,
        prompts=6,
        feedback={"pairs": pairs},
        demonstrations=demonstrations,
        models={"reward_model": scorer},
        seed=seed,
    )


def numbers(learnt) -> np.ndarray:
    samples = policy_of(np.tile(REFERENCE, (6, 1)), prompts=6)
    every = samples.encode([q for q in samples.prompts for _ in range(3)], samples.responses * 6)
    if hasattr(learnt, "scores"):
        return learnt.scores(every).detach().numpy()
    if isinstance(learnt, BestOfNPolicy):
        return np.array([int(t[0]) for t in learnt.sample(every.prompts, seed=1, purpose="t").response_tokens])
    return learnt.log_probabilities(every)[0].detach().numpy()


@pytest.mark.parametrize("name", METHODS)
def test_one_seed_gives_one_result_to_the_bit(name):
    first, second = (numbers(METHODS[name].train(everything())) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"best_of_n"}))
def test_another_seed_gives_another(name):
    assert not np.array_equal(*(numbers(METHODS[name].train(everything(seed))) for seed in (1, 2)))


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_the_rows_does_not_matter(name):
    first, second = (numbers(METHODS[name].train(everything(shuffled=shuffled))) for shuffled in (False, True))
    assert np.allclose(first, second, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"best_of_n"}))
def test_micro_batches_change_nothing(name):
    method = METHODS[name]
    whole, cut = (numbers(replace(method, micro_batch_tokens=size).train(everything())) for size in (10_000, 1))
    assert np.allclose(whole, cut, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_needs(name):
    with pytest.raises(UserError, match=r"needs|no annotated pairs"):
        METHODS[name].train(learning(policy_of(REFERENCE)))


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"best_of_n"}))
def test_steps_are_announced_once_and_then_logged(name):
    log, record = recorder()
    announced: list[int] = []
    METHODS[name].train(replace(everything(), log=record, steps=announced.append))
    steps = [m["step"] for m in log]
    assert len(announced) == 1
    assert steps == list(range(len(steps)))
    assert len(steps) - announced[0] in (0, 1)  # a reward model adds its held-out accuracy
    assert all(math.isfinite(value) for m in log for value in m.values())


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"best_of_n"}))
def test_of_several_processes_only_the_first_logs(name, monkeypatch):
    log, record = recorder()
    monkeypatch.setattr("farm.hardware.processes.is_first", lambda: False)
    METHODS[name].train(replace(everything(), log=record))
    assert log == []


def test_a_loss_that_is_not_finite_stops_the_training():
    broken = policy_of(REFERENCE)
    broken.logits.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        SFT().train(
            learning(broken, demonstrations=pd.DataFrame({"instruction": ["prompt 0"], "output": ["response 1"]}))
        )


def test_bad_preferences_are_named():
    pairs = all_pairs(bradley_terry(UTILITIES))
    pairs.loc[2, "preference"] = np.nan
    with pytest.raises(UserError, match="row 2"):
        DPO().train(learning(policy_of(REFERENCE), feedback={"pairs": pairs}))


def test_softmax_helper():
    assert softmax(np.zeros(4)) == pytest.approx(np.full(4, 0.25))
