"""GRPO, Quark, RAFT, reward conditioning, reward models, AlpacaFarm's PPO: checks with known answers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from farm.base.errors import UserError
from farm.policies import load
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Samples
from reference_methods.imitation.feedme import FeedME
from reference_methods.imitation.reward_conditioning import RewardConditioning
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.alpaca_farm_ppo import AlpacaFarmPPO, widened, with_pads
from reference_methods.online.alpaca_farm_quark import AlpacaFarmQuark
from reference_methods.online.grpo import GRPO
from reference_methods.online.quark import Quark, quantile_of
from reference_methods.parts.advantages import group_relative, leave_one_out, same_in_group
from reference_methods.parts.aggregation import aggregate
from reference_methods.parts.batches import further_prompts
from reference_methods.parts.conditioning import ConditionedPolicy
from reference_methods.parts.losses import bradley_terry
from reference_methods.selection.best_of_n_curve import BestOfNCurve, expected_best
from reference_methods.selection.expert_iteration import ExpertIteration
from reference_methods.selection.raft import RAFT
from tests.reference_methods.tables import (
    REFERENCE,
    all_pairs,
    best_of,
    distance,
    learned,
    learning,
    policy_of,
    recorder,
    scorer_of,
    tilt,
)

BANDIT = np.array([0.0, 0.5, 1.0])
ONLINE = {"steps": 150, "rollouts": 1024, "learning_rate": 0.1, "warm_up": 0.0}
EXACT = {"epochs": 400, "batch_size": 10_000, "learning_rate": 0.05, "schedule": "cosine", "max_gradient_norm": 1e6}
CYCLE = np.array([[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]])


def told(controls: list[str], reference: np.ndarray = REFERENCE) -> TabularPolicy:
    """A table that knows one prompt, plain and after each of some control texts."""
    prompts = [control + "prompt 0" for control in ["", *controls]]
    responses = [f"response {i}" for i in range(len(reference))]
    return TabularPolicy.from_probabilities(prompts, responses, torch.from_numpy(reference))


# --- GRPO ----------------------------------------------------------------------------------------------------------


def test_advantages_sum_to_zero_and_equal_groups_have_none():
    rewards = torch.tensor([1.0, 2.0, 6.0, 3.0, 3.0, 3.0])
    for by_deviation in (True, False):
        advantages = group_relative(rewards, 3, by_deviation).view(2, 3)
        assert advantages.sum(1).tolist() == pytest.approx([0, 0], abs=1e-6)
        assert advantages[1].tolist() == [0, 0, 0]
    assert same_in_group(rewards, 3).tolist() == [False] * 3 + [True] * 3
    with pytest.raises(ValueError, match="at least 2"):
        group_relative(rewards, 1)


@pytest.mark.parametrize("right", [1, 3, 6])
def test_a_binary_reward_has_the_published_advantages(right):
    rewards = torch.tensor([1.0] * right + [0.0] * (8 - right), dtype=torch.float64)
    p = right / 8
    plain = group_relative(rewards, 8, degrees_of_freedom=0, floor=0.0)
    assert float(plain[0]) == pytest.approx(math.sqrt((1 - p) / p))
    sample = group_relative(rewards, 8, degrees_of_freedom=1, floor=0.0)
    assert torch.allclose(sample, plain * math.sqrt(7 / 8))


def test_leave_one_out_is_a_multiple_of_dr_grpo():
    rewards = torch.randn(12, dtype=torch.float64)
    assert torch.allclose(leave_one_out(rewards, 4), 4 / 3 * group_relative(rewards, 4, by_deviation=False))


def test_grpo_with_the_kl_in_the_reward_converges_to_the_tilt():
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(BANDIT)})
    log, record = recorder()
    method = GRPO(beta=0.5, kl_place="reward", by_deviation=False, **ONLINE)
    found = method.train(replace(given, log=record))
    assert distance(learned(found), tilt(REFERENCE, BANDIT, 0.5)) < 0.02
    assert 0 <= log[-1]["equal_groups"] < 1 and log[0]["used_share"] == 1


def test_grpo_as_published_converges_to_the_optimum_of_the_other_kl():
    """k3 as a loss is KL(pi_ref || pi) in expectation: the optimum is beta pi_ref / (c - r), not the tilt. The mean of
    a group of 8 has the response itself in it, which shrinks the reward by 7/8."""
    beta, rewards = 0.5, 7 / 8 * BANDIT
    c = brentq(lambda c: (beta * REFERENCE / (c - rewards)).sum() - 1, 7 / 8 + 1e-6, 10)
    optimum = beta * REFERENCE / (c - rewards)
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(BANDIT)})
    found = learned(GRPO(beta=beta, by_deviation=False, **ONLINE).train(given))
    assert distance(found, optimum) < 0.02
    assert distance(optimum, tilt(REFERENCE, BANDIT, beta)) > 0.05


def test_the_horizon_only_scales_and_dr_grpo_is_the_sum_over_tokens():
    values, mask = torch.randn(4, 6), torch.arange(6)[None] < torch.tensor([6, 2, 1, 4])[:, None]
    fixed = aggregate(values, mask, "sequence_mean_token_sum_over_horizon", horizon=50)
    assert torch.allclose(50 * fixed, aggregate(values, mask, "sequence_mean_token_sum"))
    with pytest.raises(ValueError, match="horizon"):
        GRPO(aggregation="sequence_mean_token_sum_over_horizon")


def test_dropped_groups_leave_the_batch_and_its_averages():
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(np.array([0.0, 0.0, 1.0]))})
    log, record = recorder()
    settings = {"steps": 3, "rollouts": 64, "samples_per_prompt": 2, "learning_rate": 0.01, "beta": 0.0}
    GRPO(drop_equal_groups=True, aggregation="token_mean", **settings).train(replace(given, log=record))
    assert all(m["used_share"] == pytest.approx(1 - m["equal_groups"]) for m in log)
    assert 0.3 < log[0]["equal_groups"] < 0.9


def test_further_prompts_are_sampled_in_the_place_of_equal_groups():
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(np.array([0.0, 0.0, 1.0]))})
    log, record = recorder()
    settings = {"steps": 3, "rollouts": 64, "samples_per_prompt": 2, "learning_rate": 0.01, "beta": 0.0}
    full = GRPO(drop_equal_groups=True, refills=20, **settings)
    full.train(replace(given, log=record))
    for line in log:
        assert line["used_share"] == 1 and line["refilled"] > 0.5
        assert line["equal_groups"] == pytest.approx(1 - 1 / (1 + line["refilled"]))  # of all that was sampled
    log, record = recorder()
    replace(full, refills=1).train(replace(given, log=record))
    assert all(0.3 < line["used_share"] < 1 and 0.3 < line["refilled"] < 0.9 for line in log)
    log, record = recorder()
    hopeless = replace(full, refills=3).train(
        replace(given, models={"reward_model": scorer_of(np.zeros(3))}, log=record)
    )
    assert np.array_equal(learned(hopeless), learned(policy_of(REFERENCE)))
    assert log[0]["refilled"] == 3 and log[0]["used_share"] == 0
    with pytest.raises(ValueError, match="refills"):
        GRPO(refills=-1)


def test_a_full_batch_is_not_refilled_and_new_prompts_come_first():
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(BANDIT)})
    settings = {"steps": 3, "rollouts": 64, "samples_per_prompt": 32, "learning_rate": 0.01}
    assert np.array_equal(learned(GRPO(refills=5, **settings).train(given)), learned(GRPO(**settings).train(given)))
    prompts = [f"prompt {i}" for i in range(6)]
    found = further_prompts(prompts, 8, {"prompt 1", "prompt 4"}, 0, "refill")
    assert set(found[:4]) == {"prompt 0", "prompt 2", "prompt 3", "prompt 5"}
    assert set(found[4:6]) == {"prompt 1", "prompt 4"} and found[6:] == found[:2]


def test_a_batch_with_nothing_to_learn_from_changes_nothing():
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(np.zeros(3))})
    log, record = recorder()
    found = GRPO(drop_equal_groups=True, steps=2, rollouts=16, learning_rate=0.1).train(replace(given, log=record))
    assert np.array_equal(learned(found), learned(policy_of(REFERENCE)))
    assert log[0]["equal_groups"] == 1 and log[0]["used_share"] == 0


def test_a_place_of_the_kl_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="kl_place is loss or reward"):
        GRPO(kl_place="rewards")


def test_a_wider_upper_clip_lets_ratios_rise_further():
    from reference_methods.parts.losses import clipped_policy_gradient

    ratio = torch.tensor([math.log(1.25)], requires_grad=True)
    clipped_policy_gradient(ratio, torch.ones(1), 0.2, 0.28).sum().backward()
    assert ratio.grad.item() == pytest.approx(-1.25)


# --- Quark, RAFT ---------------------------------------------------------------------------------------------------


def test_quantiles_are_of_equal_size_and_in_order():
    scores = np.random.default_rng(0).normal(size=50)
    found = quantile_of(scores, 5)
    assert np.bincount(found).tolist() == [10] * 5
    assert all(scores[found == k].max() <= scores[found == k + 1].min() for k in range(4))


def test_more_quantiles_than_responses_are_refused():
    """The best of them would be empty, and nothing would ever be learnt."""
    with pytest.raises(ValueError, match=r"more quantiles \(5\) than rollouts \(4\)"):
        Quark(rollouts=4, quantiles=5)
    assert quantile_of(np.arange(5.0), 5).tolist() == [0, 1, 2, 3, 4]


def test_quark_orders_its_tokens_by_reward_and_answers_under_the_best():
    texts = ["worst ", "fair ", "best "]
    start = told(texts)
    scorer = scorer_of(BANDIT)
    given = learning(start, models={"reward_model": scorer})
    settings = {"steps": 40, "rollouts": 256, "learning_rate": 0.1, "minibatches": 1}
    found = Quark(quantiles=3, quantile_texts=texts, beta=0.0, **settings).train(given)
    table = found.policy.probabilities().detach().numpy()
    expected = table @ BANDIT
    assert expected[1] < expected[2] < expected[3]
    assert isinstance(found, ConditionedPolicy) and found.control == "best "
    samples = found.sample(["prompt 0"] * 200, seed=1, purpose="test")
    assert set(samples.prompts) == {"prompt 0"} and {int(t[0]) for t in samples.prompt_tokens} == {0}


def test_quark_on_the_best_quantile_alone_is_filtered_fine_tuning_and_its_kl_holds_it_back():
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(BANDIT)})
    settings = {"steps": 80, "rollouts": 256, "learning_rate": 0.1, "minibatches": 1, "quantiles": 4}
    free, held = (learned(AlpacaFarmQuark(beta=beta, **settings).train(given)) for beta in (0.0, 5.0))
    assert free[2] > 0.95
    assert distance(held, REFERENCE) < 0.5 * distance(free, REFERENCE)


def test_the_stages_of_raft_compound():
    start = policy_of(np.tile(REFERENCE, (40, 1)), prompts=40)
    given = learning(start, prompts=40, models={"reward_model": scorer_of(BANDIT, prompts=40)})
    settings = {"n": 2, "stages": 2, "prompts": 4000, "epochs": 150, "batch_size": 10_000, "learning_rate": 0.05}
    log, record = recorder()
    found = RAFT(**settings).train(replace(given, log=record))
    average = found.probabilities().mean(0).detach().numpy()
    assert distance(average, best_of(REFERENCE, BANDIT, 4)) < 0.03
    assert [m["step"] for m in log] == list(range(2 * 151))
    assert log[0]["kl"] == pytest.approx(0, abs=1e-6)


def test_the_penalty_of_raft_holds_its_ranking_at_the_reference():
    start = policy_of(np.tile(REFERENCE, (40, 1)), prompts=40)
    given = learning(start, prompts=40, models={"reward_model": scorer_of(BANDIT, prompts=40)})
    settings = {"n": 4, "stages": 5, "prompts": 800, "epochs": 20, "batch_size": 10_000, "learning_rate": 0.05}
    free, held = (
        RAFT(beta=beta, **settings).train(given).probabilities().mean(0).detach().numpy() for beta in (0.0, 10.0)
    )
    assert free[2] > 0.9
    assert distance(held, REFERENCE) < 0.5 * distance(free, REFERENCE)


def test_the_kl_of_raft_is_that_of_the_policy_at_the_temperature_it_samples_at():
    start = policy_of(np.tile(REFERENCE, (40, 1)), prompts=40)
    given = learning(start, prompts=40, models={"reward_model": scorer_of(BANDIT, prompts=40)})
    log, record = recorder()
    settings = {"n": 2, "stages": 2, "prompts": 4000, "epochs": 20, "batch_size": 10_000, "learning_rate": 0.05}
    method = RAFT(temperature=0.5, **settings)
    method.train(replace(given, log=record))
    once = replace(method, stages=1).train(given)  # the policy that the second stage samples
    ours, theirs = (policy.log_table(0.5).detach() for policy in (once, start))
    exact = float((ours.exp() * (ours - theirs)).sum(1).mean())
    assert exact > 0.05
    assert log[21]["kl"] == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("method", [RAFT, ExpertIteration])
def test_the_best_of_no_samples_is_refused(method):
    with pytest.raises(ValueError, match="`n` = 0 is wrong"):
        method(n=0)


# --- reward conditioning -------------------------------------------------------------------------------------------


def test_reward_conditioning_has_feedme_under_good_the_rest_under_bad_and_the_reference_between():
    copies = np.round(100 * np.outer(REFERENCE, REFERENCE))
    given = learning(told(["good ", "bad "]), feedback={"pairs": all_pairs(CYCLE, copies)})
    found = RewardConditioning(good="good ", bad="bad ", **EXACT).train(given)
    table = found.policy.probabilities().detach().numpy()
    wins = CYCLE @ REFERENCE
    assert distance(table[1], 2 * REFERENCE * wins) < 2e-3
    assert distance(table[2], 2 * REFERENCE * (1 - wins)) < 2e-3
    assert distance((table[1] + table[2]) / 2, REFERENCE) < 2e-3
    fine_tuned = FeedME(**EXACT).train(learning(policy_of(REFERENCE), feedback={"pairs": all_pairs(CYCLE, copies)}))
    assert distance(table[1], learned(fine_tuned)) < 3e-3


def test_a_conditioned_policy_is_one_policy_for_everyone_else(tmp_path):
    policy = ConditionedPolicy(told(["good "]), "good ")
    policy.policy.logits.data[1] += torch.tensor([0.0, 2.0, 0.0])
    samples = policy.sample(["prompt 0"] * 50, seed=1, purpose="test")
    written, _ = policy.log_probabilities(samples)
    assert np.allclose(written[:, 0].detach().numpy(), np.concatenate(samples.log_probabilities), atol=1e-6)
    plain, _ = told(["good "]).log_probabilities(samples)
    assert not torch.allclose(written, plain)  # the reference sees the plain prompt
    policy.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.sample(["prompt 0"] * 50, seed=1, purpose="test").outputs == samples.outputs
    assert torch.allclose(policy.distributions(samples)[0][:, 0].exp().sum(-1), torch.ones(50, dtype=torch.float64))


# --- reward models -------------------------------------------------------------------------------------------------


def scores_of(p: np.ndarray, **settings: float) -> np.ndarray:
    model = RewardModel(held_out_share=0, calibration_samples=0, **{**EXACT, "epochs": 800, **settings})
    return (
        model.train(learning(policy_of(REFERENCE[: len(p)]), feedback={"pairs": all_pairs(p)}))
        .table.detach()
        .numpy()[0]
    )


def two(p: float) -> np.ndarray:
    return np.array([[0.5, p], [1 - p, 0.5]])


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_label_smoothing_shrinks_towards_one_half():
    first, second = scores_of(two(0.9), label_smoothing=0.2)
    assert first - second == pytest.approx(logit(0.6 * 0.9 + 0.2), abs=2e-3)


def test_centring_fixes_the_constant_and_nothing_else():
    first, second = scores_of(two(0.8), centring=0.01)
    assert first + second == pytest.approx(0, abs=1e-3)
    assert first - second == pytest.approx(logit(0.8), abs=2e-3)


def test_a_margin_is_added_to_what_certain_labels_would_give():
    gap = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    certain = torch.ones(13, dtype=torch.float64)
    led, plain = bradley_terry(gap, certain, offset=0.7), bradley_terry(gap - 0.7, certain)
    assert torch.allclose(led, plain)
    without, lead = scores_of(two(0.9)), scores_of(two(0.9), margin=1.0)
    assert lead[0] - lead[1] > without[0] - without[1] + 0.5


# --- AlpacaFarm's PPO ----------------------------------------------------------------------------------------------


def test_alpaca_farms_ppo_is_the_clamped_one_where_nothing_is_padded():
    given = learning(policy_of(REFERENCE), models={"reward_model": scorer_of(BANDIT)})
    settings = {**ONLINE, "steps": 120, "learning_rate": 0.3, "rollouts": 512, "value_learning_rate": 0.05, "lam": 1.0}
    found = learned(AlpacaFarmPPO(beta=0.5, **settings).train(given))
    assert distance(found, np.array([0, 0.356, 0.644])) < 0.03


def test_pads_by_hand():
    samples = Samples(
        ["x", "x"],
        ["a", "b"],
        [np.array([1], np.int32)] * 2,
        [np.array([5, 6], np.int32), np.array([7], np.int32)],
        [np.zeros(2, np.float32), np.zeros(1, np.float32)],
        ["stop"] * 2,
    )
    tokenizer, body = SimpleNamespace(pad_token_id=9, eos_token_id=2), SimpleNamespace(context=5)
    model: Any = SimpleNamespace(tokenizer=tokenizer, body=body)
    assert [t.tolist() for t in with_pads(samples, 4, model).response_tokens] == [[5, 6, 9, 9], [7, 9, 9, 9]]
    with pytest.raises(UserError, match=r"max_new_tokens \(6\).* at most 4"):
        with_pads(samples, 6, model)
    assert widened(torch.ones(2, 3), 5).tolist() == [[1, 1, 1, 0, 0]] * 2


# --- best-of-n for every n -----------------------------------------------------------------------------------------


def test_one_pool_gives_the_expected_best_of_every_n():
    generator = np.random.default_rng(0)
    rewards, values = generator.normal(size=(3, 6)), generator.normal(size=(3, 6))
    for n in (1, 2, 3, 6):
        choices = [list(c) for c in itertools.combinations(range(6), n)]
        by_hand = np.mean([values[np.arange(3), np.take(c, rewards[:, c].argmax(1))] for c in choices], axis=0)
        assert np.allclose(expected_best(values, rewards, n), by_hand)


def test_the_curve_is_the_known_law_of_best_of_n():
    log, record = recorder()
    start = policy_of(np.tile(REFERENCE, (50, 1)), prompts=50)
    given = learning(start, prompts=50, models={"reward_model": scorer_of(BANDIT, prompts=50)})
    worth = np.array([3.0, 1.0, 2.0])
    gold = lambda samples: worth[[int(t[0]) for t in samples.response_tokens]]  # noqa: E731
    BestOfNCurve(n=2, prompts=50, candidates=256).train(replace(given, log=record, gold=gold))
    assert [m["n"] for m in log] == [2**k for k in range(9)]
    for line in log[:5]:
        law = best_of(REFERENCE, BANDIT, int(line["n"]))
        assert line["reward"] == pytest.approx(law @ BANDIT, abs=0.02)
        assert line["gold"] == pytest.approx(law @ worth, abs=0.06)
    assert log[2]["kl"] == pytest.approx(0.636, abs=1e-3)


@pytest.mark.filterwarnings("error", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_curve_of_a_single_prompt_has_no_standard_error():
    log, record = recorder()
    given = learning(
        policy_of(REFERENCE), models={"reward_model": scorer_of(BANDIT)}, gold=lambda samples: np.ones(len(samples))
    )
    BestOfNCurve(prompts=1, candidates=4).train(replace(given, log=record))
    assert [line["gold"] for line in log] == pytest.approx([1, 1, 1])
    assert not any("gold_error" in line for line in log)
