"""Batches, schedules, the optimizer, pairs and rollouts: what every method relies on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.base import rng
from farm.base.errors import UserError
from farm.roles import config
from farm.roles.protocols import Method, Samples
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from reference_methods.parts import kl
from reference_methods.parts.batches import TrainingRows, in_parts, micro_batches, minibatches, prompt_stream
from reference_methods.parts.online import Online
from reference_methods.parts.optimization import Optimizer, rate
from reference_methods.parts.preferences import Preferences, agreement
from reference_methods.parts.rollouts import Rollout, padded
from tests.reference_methods.tables import (
    REFERENCE,
    all_pairs,
    bradley_terry,
    learning,
    policy_of,
    rollout_of,
    scorer_of,
)

IDS = rng.text_ids([f"row {i}" for i in range(100)])
LENGTHS = np.random.default_rng(0).integers(1, 60, 100)

# --- batches ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 120), st.integers(1, 3), st.integers(1, 9))
def test_every_row_comes_once_an_epoch(size, epochs, bucket):
    batches = minibatches(IDS, LENGTHS, size, epochs, 1, "test", bucket)
    assert sorted(np.concatenate(batches)) == sorted(list(range(100)) * epochs)
    per_epoch = -(-100 // size)
    assert len(batches) == epochs * per_epoch
    assert sorted(map(len, batches)) == sorted(([size] * (100 // size) + [100 % size] * (100 % size > 0)) * epochs)


def test_epochs_and_seeds_differ_and_repeat():
    first, again = (minibatches(IDS, LENGTHS, 10, 2, 1, "test") for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(np.concatenate(first[:10]), np.concatenate(first[10:]))
    other = minibatches(IDS, LENGTHS, 10, 2, 2, "test")
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


def test_the_batches_follow_the_rows_not_their_places():
    shuffle = np.random.default_rng(1).permutation(100)
    plain = minibatches(IDS, LENGTHS, 10, 1, 1, "test")
    moved = minibatches(IDS[shuffle], LENGTHS[shuffle], 10, 1, 1, "test")
    assert [set(IDS[b]) for b in plain] == [set(IDS[shuffle][b]) for b in moved]


def test_buckets_save_padding():
    def padding(bucket: int) -> int:
        batches = minibatches(IDS, LENGTHS, 10, 1, 1, "test", bucket)
        return sum(int(LENGTHS[b].max()) * len(b) for b in batches)

    assert padding(8) < 0.8 * padding(1)


@given(st.integers(1, 500))
def test_micro_batches_hold_all_rows_within_the_limit(tokens):
    rows = np.arange(3, 83)
    parts = micro_batches(rows, LENGTHS, tokens)
    assert sorted(np.concatenate(parts)) == list(rows)
    assert all(len(part) == 1 or len(part) * LENGTHS[part].max() <= tokens for part in parts)


def test_prompts_come_all_before_any_comes_again():
    prompts = [f"prompt {i}" for i in range(7)]
    flat = [p for batch in prompt_stream(prompts, 5, 6, 1, "test") for p in batch]
    assert len(flat) == 30
    for start in (0, 7, 14, 21):
        assert sorted(flat[start : start + 7]) == prompts
    assert flat[:7] != flat[7:14]
    backwards = [p for batch in prompt_stream(prompts[::-1], 5, 6, 1, "test") for p in batch]
    longer = [p for batch in prompt_stream(prompts, 5, 60, 1, "test") for p in batch]
    assert flat == backwards == longer[:30]


def test_cutting_a_computation_changes_nothing():
    samples = Samples(
        ["p"] * 9,
        [""] * 9,
        [np.zeros(2, np.int32)] * 9,
        [np.arange(n, dtype=np.int32) for n in (3, 1, 4, 1, 5, 9, 2, 6, 5)],
        [np.zeros(n, np.float32) for n in (3, 1, 4, 1, 5, 9, 2, 6, 5)],
        ["stop"] * 9,
    )

    def tokens(part: Samples) -> torch.Tensor:
        return padded([t.astype(np.float32) for t in part.response_tokens], torch.zeros(1, part.lengths().max()))[0]

    whole = tokens(samples)
    for limit in (1, 13, 30, 1000):
        assert torch.equal(in_parts(tokens, samples, limit), whole)
        assert torch.equal(in_parts(lambda part: tokens(part).sum(1), samples, limit), whole.sum(1))


# --- optimizer --------------------------------------------------------------------------------------------------------


def test_schedules():
    assert [rate("linear", k, 4, 0.0) for k in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [rate("constant", k, 4, 0.5) for k in range(4)] == [1 / 3, 2 / 3, 1, 1]
    assert [rate("cosine", k, 4, 0.0) for k in range(4)] == pytest.approx(
        [1, 0.5 * (1 + math.sqrt(0.5)), 0.5, 0.5 * (1 - math.sqrt(0.5))]
    )


def test_a_name_that_is_not_known_is_refused_and_not_taken_for_another():
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        rate("cosin", 1, 4, 0.0)
    with pytest.raises(UserError, match="`schedule` = 'banana' is wrong"):
        config.build(Method, {"use": "raft", "schedule": "banana"}, origin="a test")


def test_each_network_has_its_own_rate_and_clip():
    first, second = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimizer = Optimizer(
        [([first], 0.1), ([second], 0.01)],
        steps=10,
        schedule="constant",
        warm_up=0.0,
        max_gradient_norm=1.0,
        purpose="test",
    )
    (100 * first.sum() + 1e-3 * second.sum()).backward()
    metrics = optimizer.step()
    assert metrics["gradient_norm"] == pytest.approx(100 * math.sqrt(3))
    assert first.tolist() == pytest.approx([-0.1] * 3, rel=1e-3)  # Adam's first step is the rate, whatever the gradient
    assert second.tolist() == pytest.approx([-0.01] * 3, rel=1e-3)
    assert first.grad is None


def test_the_first_number_that_is_not_finite_stops():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = Optimizer(
        [([parameter], 0.1)], steps=1, schedule="constant", warm_up=0.0, max_gradient_norm=1.0, purpose="dpo"
    )
    (parameter / 0).sum().backward()
    with pytest.raises(UserError, match=r"dpo: the loss or its gradient is not finite at update 0.*learning rate"):
        optimizer.step()
    assert parameter.tolist() == [1, 1]


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_preference_becomes_the_probability_of_the_first():
    table = pd.DataFrame(
        {
            "instruction": "prompt 0",
            "output_1": ["response 0", "response 1", "response 2"],
            "output_2": ["response 1", "response 2", "response 0"],
            "preference": [1.0, 2.0, 1.5],
        }
    )
    pairs = Preferences.read(learning(policy_of(REFERENCE), feedback={"pairs": table}))
    assert pairs.p_first.tolist() == [1, 0, 0.5]
    assert [int(t[0]) for t in pairs.both(np.array([0, 2])).response_tokens] == [0, 2, 1, 0]


def test_agreement_counts_ties_and_indecision_half():
    margin, label = torch.tensor([2.0, -1.0, 0.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 0.5])
    assert agreement(margin, label).tolist() == [1, 0, 0.5, 0.5]


def test_held_out_pairs_are_the_same_whatever_the_order_of_the_rows():
    table = all_pairs(bradley_terry(np.linspace(0, 1, 9)))
    policy = policy_of(np.full(9, 1 / 9))
    sides = []
    for rows in (table, table.sample(frac=1, random_state=1)):
        _, held = Preferences.read(learning(policy, feedback={"pairs": rows})).hold_out(0.3, 1, "test")
        sides.append({(a, b) for a, b in zip(held.first.outputs, held.second.outputs, strict=True)})
    assert sides[0] == sides[1]
    assert all((b, a) in sides[0] for a, b in sides[0])  # both orders of a pair fall on one side


# --- rollouts ---------------------------------------------------------------------------------------------------------


def rollout() -> Rollout:
    new = [np.array([-1.0, -2.0, -0.5], np.float32), np.array([-3.0], np.float32)]
    samples = Samples(
        ["a", "b"],
        ["", ""],
        [np.zeros(1, np.int32)] * 2,
        [np.zeros(3, np.int32), np.zeros(1, np.int32)],
        new,
        ["stop"] * 2,
    )
    reference = torch.tensor([[-1.5, -1.0, -0.5], [-2.0, 0.0, 0.0]])
    log_probabilities, mask = padded(new, like=reference)
    return Rollout(samples, mask, log_probabilities, reference, torch.tensor([10.0, 20.0]), started=0.0)


def test_rewards_of_tokens_by_hand():
    """-beta (log pi - log pi_ref) everywhere, the score on the last real token, nothing on padding."""
    found = rollout().token_rewards(2.0)
    assert found.tolist() == [[-1.0, 2.0, 10.0], [22.0, 0.0, 0.0]]
    assert rollout().sequence_rewards(2.0).tolist() == [11, 22]
    assert rollout().token_rewards(2.0, kl.k1_clamped).tolist() == [[-1.0, 0.0, 10.0], [20.0, 0.0, 0.0]]


def test_what_is_said_of_a_rollout():
    found = rollout().metrics(learning(policy_of(REFERENCE), gold=lambda samples: np.array([1.0, 4.0])))
    assert found["reward"] == 15
    assert found["kl"] == pytest.approx((-0.5 - 1) / 2)
    assert found["entropy"] == pytest.approx((1 + 2 + 0.5 + 3) / 4)
    assert (found["length"], found["truncated_share"], found["gold"]) == (2, 0, 2.5)


def test_the_weight_of_a_response_is_the_mean_of_its_tokens_weights():
    weighted = replace(rollout(), weights=torch.tensor([[2.0, 0.5, 0.2], [1.5, 9.0, 9.0]]))
    assert weighted.sequence_weights().tolist() == pytest.approx([0.9, 1.5])
    assert rollout().sequence_weights().tolist() == [1, 1] and rollout().token_weights().tolist() == [[1] * 3] * 2


@pytest.mark.parametrize("method", [PPO(beta=0.3), RLOO(beta=0.3), GRPO(beta=0.3)], ids=lambda m: type(m).__name__)
def test_importance_weights_multiply_what_each_response_adds_to_the_loss(method):
    """Once, and neither the baseline nor the whitening: the loss of a batch is the mean of weight times share."""
    start = policy_of(REFERENCE)
    given = learning(start, models={"reward_model": scorer_of([0.0, 0.5, 1.0])})
    small, moved = replace(method, steps=1, rollouts=16, samples_per_prompt=4), policy_of([0.2, 0.5, 0.3])
    sampled = rollout_of(small, given, moved)
    weights = torch.linspace(0.2, 2.0, 16, dtype=torch.float64)[:, None]
    critic = given.scorer().copy(zero_head=True)

    def policy_loss(found: Rollout, rows: np.ndarray) -> float:
        batch = TrainingRows.of(found.samples).batch(rows)
        if isinstance(small, PPO):
            targets = small.targets(found, critic.values(found.samples).detach())
            return float(small.loss(start, critic, found, targets, batch)[1]["policy_loss"].detach())
        return float(small.loss(start, found, small.advantages(found), batch)[0].detach())

    each = np.array([policy_loss(sampled, np.array([row])) for row in range(16)])
    assert np.ptp(each) > 0.1
    whole = policy_loss(replace(sampled, weights=weights), np.arange(16))
    assert whole == pytest.approx(float((weights[:, 0].numpy() * each).mean()))


@pytest.mark.parametrize(
    "settings", [{"rollouts": 10, "samples_per_prompt": 4}, {"rollouts": 9}, {"temperature": 0.0}], ids=str
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError):
        Online(**settings)
