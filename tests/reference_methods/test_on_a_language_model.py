"""The same methods on a model of a few thousand parameters: responses of different lengths, tokens, a real network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from farm.base.errors import UserError
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning, Policy, Samples, Scorer
from reference_methods.imitation.feedme import FeedME
from reference_methods.imitation.reward_conditioning import RewardConditioning
from reference_methods.imitation.sft import SFT
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.alpaca_farm_ppo import AlpacaFarmPPO, with_pads
from reference_methods.online.alpaca_farm_quark import AlpacaFarmQuark
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.online.quark import Quark
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.ipo import IPO
from reference_methods.pairs.kto import KTO
from reference_methods.pairs.orpo import ORPO
from reference_methods.pairs.simpo import SimPO
from reference_methods.pairs.slic import SLiC
from reference_methods.parts.batches import TrainingRows, in_parts, log_likelihoods
from reference_methods.parts.conditioning import with_prompts
from reference_methods.selection.best_of_n import BestOfN
from reference_methods.selection.expert_iteration import ExpertIteration
from reference_methods.selection.raft import RAFT
from tests.policies.conftest import PROMPTS, make_policy, small_model, word_tokenizer
from tests.reference_methods.tables import recorder, rollout_of

RARE = "w5"
"""the word that is worth something in these tests"""


@pytest.fixture(scope="module")
def start() -> Policy:
    return make_policy()


def worth(samples: Samples) -> np.ndarray:
    return np.array([text.split().count(RARE) for text in samples.outputs], dtype=np.float64)


class CountsWords:
    """A reward model that is right: the number of times a word occurs, less its mean."""

    def __init__(self, critic: Scorer) -> None:
        self.critic = critic

    def scores(self, samples: Samples) -> torch.Tensor:
        return torch.from_numpy(worth(samples)).float()

    def values(self, samples: Samples) -> torch.Tensor:
        return self.critic.values(samples)

    def calibrate(self, mean: float, scale: float) -> None:
        raise AssertionError("nothing to calibrate")

    def copy(self, zero_head: bool = False) -> Scorer:
        return self.critic.copy(zero_head)

    def parameters(self) -> Any:
        return self.critic.parameters()

    def save(self, folder: Any) -> None:
        self.critic.save(folder)


def pair_table(policy: Policy, pairs: int) -> pd.DataFrame:
    """Pairs of samples with their tokens; the one with more of the word is preferred, else it is a tie."""
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(pairs) for _ in (0, 1)]
    samples = policy.sample(prompts, seed=5, purpose="pairs")
    sides = [samples.select(range(side, 2 * pairs, 2)) for side in (0, 1)]
    table = sides[0].frame("sft")[["instruction", "prompt_tokens"]]
    for i, side in enumerate(sides, start=1):
        frame = side.frame("sft").drop(columns=["instruction", "prompt_tokens"])
        table = pd.concat([table, frame.rename(columns=lambda name, i=i: f"{name}_{i}")], axis=1)
    table["preference"] = 1.5 + 0.5 * np.sign(worth(sides[1]) - worth(sides[0]))
    return table


@pytest.fixture(scope="module")
def given(start: Policy) -> Learning:
    demonstrations = start.sample(PROMPTS * 4, seed=6, purpose="demonstrations").frame("human")
    return Learning(
        seed=1,
        policy=start,
        prompts=pd.DataFrame({"instruction": PROMPTS}),
        feedback={"pairs": pair_table(start, 40)},
        demonstrations=demonstrations[["instruction", "output"]],
        models={"reward_model": CountsWords(start.scorer(3))},
        gold=worth,
    )


METHODS: dict[str, Any] = {
    "sft": SFT(batch_size=8, learning_rate=1e-3),
    "feedme": FeedME(batch_size=8, learning_rate=1e-3),
    "dpo": DPO(batch_size=8, learning_rate=1e-3),
    "ipo": IPO(batch_size=8, learning_rate=1e-3),
    "kto": KTO(batch_size=8, learning_rate=1e-3),
    "slic": SLiC(batch_size=8, learning_rate=1e-3),
    "orpo": ORPO(batch_size=8, learning_rate=1e-3),
    "simpo": SimPO(batch_size=8, learning_rate=1e-3),
    "reward_model": RewardModel(batch_size=8, learning_rate=1e-3, calibration_samples=32),
    "expert_iteration": ExpertIteration(n=2, batch_size=4, prompts=12, learning_rate=1e-3),
    "ppo": PPO(steps=3, rollouts=16, learning_rate=1e-3, value_learning_rate=1e-3),
    "rloo": RLOO(steps=3, rollouts=16, learning_rate=1e-3),
    "alpaca_farm_ppo": AlpacaFarmPPO(steps=3, rollouts=16, learning_rate=1e-3, value_learning_rate=1e-3),
    "grpo": GRPO(steps=3, rollouts=16, samples_per_prompt=4, learning_rate=1e-3),
    "dr_grpo": GRPO(
        steps=3,
        rollouts=16,
        samples_per_prompt=4,
        learning_rate=1e-3,
        by_deviation=False,
        aggregation="sequence_mean_token_sum_over_horizon",
        horizon=12,
    ),
    "dapo": GRPO(
        steps=3,
        rollouts=16,
        samples_per_prompt=4,
        learning_rate=1e-3,
        aggregation="token_mean",
        clip_high=0.28,
        drop_equal_groups=True,
        refills=2,
        drop_truncated=True,
    ),
    "quark": Quark(steps=3, rollouts=16, quantiles=2, quantile_texts=["w30 ", "w31 "], learning_rate=1e-3),
    "best_quantile": AlpacaFarmQuark(steps=3, rollouts=16, entropy=0.01, learning_rate=1e-3),
    "raft": RAFT(n=2, stages=2, prompts=8, batch_size=4, learning_rate=1e-3),
    "reward_conditioning": RewardConditioning(good="w30 ", bad="w31 ", batch_size=8, learning_rate=1e-3),
}


def numbers(learnt: Any, given: Learning) -> torch.Tensor:
    """What was learned, as numbers that can be compared: log-likelihoods or scores of the first responses."""
    samples = Samples.from_frame(given.preferences, "_1")
    with torch.no_grad():
        return learnt.scores(samples) if hasattr(learnt, "scores") else log_likelihoods(learnt, samples)


@pytest.mark.parametrize("name", METHODS)
def test_training_changes_the_model_and_repeats_to_the_bit(name, given):
    log, record = recorder()
    before = numbers(given.policy, given)
    first = numbers(METHODS[name].train(replace(given, log=record)), given)
    assert torch.equal(first, numbers(METHODS[name].train(given), given))
    assert torch.equal(before, numbers(given.policy, given))  # the SFT policy is left alone
    assert not torch.allclose(first, before, atol=1e-4)
    assert all(math.isfinite(value) for metrics in log for value in metrics.values())


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_change_nothing_but_rounding(name, given):
    whole, cut = (
        numbers(replace(METHODS[name], micro_batch_tokens=size).train(given), given) for size in (100_000, 40)
    )
    # Adam divides by the gradient's size, so that where it is almost zero a rounding error is not small.
    assert torch.allclose(whole, cut, atol=0.05)
    assert float((whole - cut).abs().mean()) < 5e-3


def test_first_steps_are_where_theory_puts_them(given):
    for name, expected in (
        ("dpo", {"loss": math.log(2), "margin": 0, "chosen_log_ratio": 0}),
        ("ppo", {"kl": 0, "explained_variance": 0}),
        ("rloo", {"kl": 0}),
    ):
        log, record = recorder()
        METHODS[name].train(replace(given, log=record))
        for metric, value in expected.items():
            assert log[0][metric] == pytest.approx(value, abs=1e-4), (name, metric)
        assert log[-1] != log[0]


def test_sft_learns_eight_examples_by_heart():
    start = LanguageModelPolicy(small_model(sharpness=0.5), word_tokenizer(), template="{prompt}", max_new_tokens=12)
    # No response starts with its prompt: attention cannot tell one token from the same one twice.
    words = np.random.default_rng(0).integers(8, 40, (8, 5))
    table = pd.DataFrame(
        {"instruction": [f"w{i}" for i in range(8)], "output": [" ".join(f"w{w}" for w in row) for row in words]}
    )
    log, record = recorder()
    learning = Learning(seed=1, policy=start, prompts=table, demonstrations=table, log=record)
    learnt = SFT(epochs=250, batch_size=8, learning_rate=0.02).train(learning)
    assert log[-1]["loss"] < 0.01
    written = learnt.sample(table["instruction"].tolist(), seed=1, purpose="test", temperature=0)
    assert [text.strip() for text in written.outputs] == table["output"].tolist()
    assert set(written.finish_reason) == {"stop"}  # the end of sequence was in the loss


def test_pairs_without_tokens_are_encoded(given):
    table = given.preferences[["instruction", "output_1", "output_2", "preference"]]
    log, record = recorder()
    DPO(batch_size=8).train(replace(given, feedback={"pairs": table}, log=record))
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_reward_model_learns_what_is_preferred(given, start):
    table = pair_table(start, 400)
    model = RewardModel(epochs=8, batch_size=32, learning_rate=0.01, held_out_share=0, calibration_samples=128)
    scorer = model.train(replace(given, feedback={"pairs": table}))
    fresh = start.sample(PROMPTS * 50, seed=9, purpose="fresh")
    with torch.no_grad():
        scores = in_parts(scorer.scores, fresh, 4096).numpy()
    assert np.corrcoef(scores, worth(fresh))[0, 1] > 0.6
    assert scores.mean() == pytest.approx(0, abs=0.25)
    assert scores.std() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize(
    "method",
    [
        PPO(steps=15, rollouts=128, learning_rate=0.01, value_learning_rate=0.01, beta=0.05, missing_eos_reward=None),
        RLOO(steps=15, rollouts=128, learning_rate=0.01, beta=0.05, missing_eos_reward=None),
        ExpertIteration(n=8, prompts=200, batch_size=32, learning_rate=0.01),
        BestOfN(n=8),
    ],
    ids=lambda method: type(method).__name__,
)
def test_the_reward_rises(method, given, start):
    learnt = method.train(given)
    prompts = PROMPTS * 40
    before = worth(start.sample(prompts, seed=11, purpose="before"))
    after = worth(learnt.sample(prompts, seed=11, purpose="after"))
    assert after.mean() > before.mean() + 5 * before.std() / math.sqrt(len(prompts))


def test_best_of_n_is_saved_and_loaded(given, start, tmp_path):
    best = BestOfN(n=3).train(replace(given, models={"reward_model": start.scorer(3)}))
    best.save(tmp_path / "model")
    first, second = (p.sample(PROMPTS, seed=2, purpose="x").outputs for p in (best, load(tmp_path / "model")))
    assert first == second


def test_a_response_that_does_not_end_gets_the_fixed_reward(given, start):
    log, record = recorder()
    short = replace(given, policy=start, log=record)
    RLOO(steps=1, rollouts=8, max_new_tokens=1, missing_eos_reward=-3.0, learning_rate=0.0).train(short)
    assert log[0]["truncated_share"] > 0
    expected = -3.0 * log[0]["truncated_share"]  # what ends at once has none of the word
    assert log[0]["reward"] == pytest.approx(expected)


def test_alpaca_farms_ppo_is_its_code_pads_and_all(given, start):
    """Its `_shape_reward`, `_estimate_advantage` and `compute_loss`, line by line on [B, T] tensors full of pads."""
    method = AlpacaFarmPPO(steps=1, rollouts=16, max_new_tokens=12, beta=0.3, lam=0.9, value_coefficient=0.1)
    policy, critic = SFT(batch_size=8, learning_rate=1e-2).train(given), start.scorer(4)
    rollout = rollout_of(method, given, policy)
    width, lengths = 12, rollout.samples.lengths()
    assert lengths.min() < 8 and float((rollout.log_probabilities - rollout.reference).abs().max()) > 0.1

    def wide(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor, tensor.new_zeros(len(tensor), width - tensor.shape[1])], 1)

    def whiten(values: torch.Tensor, shift_mean: bool) -> torch.Tensor:
        mean, std = values.mean(), values.std(unbiased=False)
        whitened = (values - mean) / (std + 1e-8)
        return whitened if shift_mean else whitened + mean

    old = wide(rollout.log_probabilities)
    shaped = -0.3 * torch.clamp(old - wide(rollout.reference), min=0.0)
    shaped[range(16), lengths - 1] += rollout.scores
    shaped = whiten(shaped, shift_mean=False)
    padded = replace(
        rollout.samples,
        response_tokens=[
            np.concatenate([t, np.full(width - len(t), start.tokenizer.pad_token_id)]).astype(np.int32)
            for t in rollout.samples.response_tokens
        ],
    )
    values = critic.values(padded).detach()
    last, reversed_advantages = torch.zeros(16), []
    for t in reversed(range(width)):
        following = values[:, t + 1] if t < width - 1 else 0.0
        last = shaped[:, t] + following - values[:, t] + 0.9 * last
        reversed_advantages.append(last)
    advantages = torch.stack(reversed_advantages[::-1], 1)
    returns, advantages = advantages + values, whiten(advantages, shift_mean=True)

    targets = method.targets(rollout, critic.values(with_pads(rollout.samples, width, critic)).detach())
    for found, expected in (
        (targets.old_values, values),
        (targets.returns, returns),
        (targets.advantages, advantages),
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)

    moved, moved_critic = METHODS["sft"].train(given), critic.copy()
    with torch.no_grad():
        moved_critic.bias += 0.3
    rows = np.array([3, 1, 8, 10])
    ratio = (wide(moved.log_probabilities(rollout.samples)[0].detach()) - old).exp()[rows]
    a, g, v, new = advantages[rows], returns[rows], values[rows], values[rows] + 0.3
    policy_loss = torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.2)).mean()
    value_loss = 0.5 * torch.maximum((new - g) ** 2, (torch.clamp(new, v - 0.2, v + 0.2) - g) ** 2).mean()
    batch = replace(TrainingRows.of(rollout.samples), tokens=np.full(16, width)).batch(rows)
    seen = with_pads(rollout.samples, width, critic)
    loss, metrics = method.padded_loss(moved, moved_critic, rollout, seen, targets, batch)
    assert float(ratio.max()) > 1.2
    assert metrics["policy_loss"].item() == pytest.approx(policy_loss.item(), abs=1e-5)
    assert loss.item() == pytest.approx((policy_loss + 0.1 * value_loss).item(), abs=1e-5)


def test_ppo_looks_as_far_ahead_as_lambda_and_gamma_say(given, start):
    method = PPO(steps=1, rollouts=8, gamma=0.9, lam=0.5)
    critic = start.scorer(4)
    policy = SFT(batch_size=8, learning_rate=1e-2).train(given)
    rollout = rollout_of(method, given, policy)
    targets = method.targets(rollout, critic.values(rollout.samples).detach())
    row = int(rollout.samples.lengths().argmax())
    values, rewards = critic.values(rollout.samples)[row].tolist(), rollout.token_rewards(method.beta)[row]
    ahead, expected = 0.0, []
    for t in reversed(range(len(values))):
        following = values[t + 1] if t + 1 < len(values) else 0.0
        ahead = float(rewards[t]) + 0.9 * following - values[t] + 0.9 * 0.5 * ahead
        expected.append(ahead + values[t])
    assert len(values) > 3
    assert targets.returns[row].tolist() == pytest.approx(expected[::-1], abs=1e-5)


def test_cut_responses_leave_the_batch_where_asked(given, start):
    log, record = recorder()
    method = GRPO(steps=1, rollouts=24, samples_per_prompt=4, max_new_tokens=3, drop_truncated=True)
    method.train(replace(given, policy=start, log=record))
    assert 0 < log[0]["truncated_share"] < 1
    assert log[0]["used_share"] == pytest.approx(1 - log[0]["truncated_share"])


def test_quarks_loss_by_hand(given, start):
    """-log pi(y | q, x) + beta KL(pi(. | q, x) || pi_ref(. | x)) - entropy H: the reference sees no text of a quantile,
    the KL is that from the policy, and means are over the tokens of the minibatch."""
    method = Quark(beta=0.7, entropy=0.2, quantiles=2, quantile_texts=["w30 ", "w31 "], rollouts=8, temperature=0.8)
    policy, rows = METHODS["sft"].train(given), np.array([0, 3, 5])
    samples = start.sample(PROMPTS * 2, seed=4, purpose="quark")
    conditioned = with_prompts(policy, samples, ["w31 " + prompt for prompt in samples.prompts])
    loss, metrics = method.loss(policy, start, samples, conditioned, TrainingRows.of(samples).batch(rows))
    expected = []
    for row in rows:
        p = policy.distributions(conditioned.select([row]), 0.8)[0][0]
        q = start.distributions(samples.select([row]), 0.8)[0][0]
        chosen = p[range(len(p)), samples.response_tokens[row]]
        expected.append((-chosen + 0.7 * (p.exp() * (p - q)).sum(-1) + 0.2 * (p.exp() * p).sum(-1)).detach())
    assert len({len(tokens) for tokens in expected}) > 1
    assert loss.item() == pytest.approx(torch.cat(expected).mean().item(), abs=1e-5)
    assert metrics["token_kl"].item() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("method", [PPO, RLOO])
def test_the_objective_rises_towards_its_bound(method, given, start, monkeypatch):
    """E r - beta KL can be at most beta log E_ref exp(r / beta); most of the way there is found by a few steps."""
    beta = 0.3

    def contains(samples: Samples) -> np.ndarray:
        return np.minimum(worth(samples), 1.0)

    monkeypatch.setattr(CountsWords, "scores", lambda self, samples: torch.from_numpy(contains(samples)).float())
    before = start.sample(PROMPTS * 700, seed=3, purpose="before")
    rewards, asked = contains(before), np.array(before.prompts)
    bound = np.mean([beta * math.log(np.exp(rewards[asked == prompt] / beta).mean()) for prompt in PROMPTS])
    settings = {"steps": 40, "rollouts": 256, "learning_rate": 0.003, "beta": beta, "missing_eos_reward": None}
    if method is PPO:
        settings["value_learning_rate"] = 0.01
    learnt = method(**settings).train(given)
    after = learnt.sample(PROMPTS * 300, seed=4, purpose="after")
    with torch.no_grad():
        divergence = float((log_likelihoods(learnt, after) - log_likelihoods(start, after)).mean())
    reached = contains(after).mean() - beta * divergence
    assert rewards.mean() + 0.5 * (bound - rewards.mean()) < reached < bound + 0.02


@pytest.mark.parametrize("name", ["dpo", "kto", "simpo", "orpo", "reward_conditioning", "grpo", "quark"])
@pytest.mark.parametrize("chat", [False, True])
def test_an_empty_answer_is_its_end_alone_with_and_without_a_chat_template(name, chat, given):
    """The end of sequence is the one token of an empty answer: counted, scored and learnt like any other."""
    policy = make_policy(chat=chat)
    table = given.preferences[["instruction", "output_1", "output_2", "preference"]].copy()
    table.loc[::3, "output_1"] = ""
    table.loc[1::4, "output_2"] = ""
    log, record = recorder()
    learnt = METHODS[name].train(replace(given, policy=policy, feedback={"pairs": table}, log=record))
    assert all(math.isfinite(value) for metrics in log for value in metrics.values())
    assert learnt.sample(PROMPTS[:1], seed=1, purpose="test").prompts == PROMPTS[:1]


@pytest.mark.parametrize("method", [DPO(), KTO()])
def test_a_pair_longer_than_the_window_is_named(method, given):
    table = given.preferences[["instruction", "output_1", "output_2", "preference"]].copy()
    table.loc[2, "output_1"] = " ".join(["w1"] * 500)
    with pytest.raises(UserError, match=r"does not fit the model's context"):
        method.train(replace(given, feedback={"pairs": table}))
