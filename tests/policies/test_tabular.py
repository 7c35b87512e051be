"""The table: exact probabilities, draws that follow their key, round trips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from farm.base.errors import UserError
from farm.policies import load
from farm.policies.batches import of_sampled
from farm.policies.tabular import TabularPolicy, TabularScorer
from farm.roles.protocols import Policy, Samples, Scorer

PROMPTS = ["red", "green", "blue"]
RESPONSES = ["a", "b", "c", "d"]


@pytest.fixture
def policy() -> TabularPolicy:
    return TabularPolicy(PROMPTS, RESPONSES, torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))


def test_fulfils_the_roles(policy: TabularPolicy) -> None:
    assert isinstance(policy, Policy)
    assert isinstance(policy.scorer(0), Scorer)


def test_constructed_from_probabilities() -> None:
    wanted = np.array([0.1, 0.2, 0.3, 0.4])
    policy = TabularPolicy.from_probabilities(PROMPTS, RESPONSES, wanted)
    assert policy.probabilities().dtype == torch.float64
    np.testing.assert_allclose(policy.probabilities().detach(), np.tile(wanted, (3, 1)), rtol=1e-12)
    with pytest.raises(ValueError, match="positive"):
        TabularPolicy.from_probabilities(PROMPTS, RESPONSES, np.array([0.0, 0.5, 0.25, 0.25]))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_sampled_frequencies_follow_the_table(policy: TabularPolicy, temperature: float) -> None:
    n = 20_000
    samples = policy.sample(["green"] * n, seed=3, purpose="test", temperature=temperature)
    counts = np.bincount([t[0] for t in samples.response_tokens], minlength=4) / n
    wanted = policy.probabilities(temperature)[1].detach().numpy()
    np.testing.assert_allclose(counts, wanted, atol=4 * 0.5 / n**0.5)
    assert samples.outputs[:5] == [RESPONSES[t[0]] for t in samples.response_tokens[:5]]
    assert set(samples.finish_reason) == {"stop"}


def test_sampled_log_probabilities_are_those_of_the_policy(policy: TabularPolicy) -> None:
    samples = policy.sample(PROMPTS * 5, seed=0, purpose="test", temperature=0.7)
    chosen, mask = policy.log_probabilities(samples, temperature=0.7)
    assert mask.all() and chosen.shape == mask.shape == (15, 1)
    np.testing.assert_allclose(chosen.detach().numpy(), np.stack(samples.log_probabilities), atol=1e-6)
    table, _ = policy.distributions(samples, temperature=0.7)
    picked = table[torch.arange(15), 0, torch.tensor([t[0] for t in samples.response_tokens])]
    torch.testing.assert_close(picked, chosen[:, 0])
    assert torch.equal(of_sampled(table, samples, mask)[:, 0], picked)


def test_draws_depend_on_the_key_and_not_on_the_order(policy: TabularPolicy) -> None:
    prompts = PROMPTS * 20
    order = np.random.default_rng(0).permutation(len(prompts))
    straight = policy.sample(prompts, seed=5, purpose="x")
    shuffled = policy.sample([prompts[i] for i in order], seed=5, purpose="x")
    for prompt in PROMPTS:
        of = [o for p, o in zip(straight.prompts, straight.outputs, strict=True) if p == prompt]
        assert of == [o for p, o in zip(shuffled.prompts, shuffled.outputs, strict=True) if p == prompt]
    assert policy.sample(prompts, seed=6, purpose="x").outputs != straight.outputs
    assert policy.sample(prompts, seed=5, purpose="y").outputs != straight.outputs


def test_greedy_takes_the_best(policy: TabularPolicy) -> None:
    best = policy.logits.argmax(1).tolist()
    assert [t[0] for t in policy.sample(PROMPTS, seed=0, purpose="t", temperature=0).response_tokens] == best


def test_gradient_of_an_exact_expectation(policy: TabularPolicy) -> None:
    reward = torch.arange(4.0)
    (policy.probabilities() * reward).sum(-1).sum().backward()
    p = policy.probabilities().detach()
    wanted = p * (reward - (p * reward).sum(-1, keepdim=True))
    torch.testing.assert_close(policy.logits.grad, wanted)


def test_copies_are_independent(policy: TabularPolicy) -> None:
    other = policy.copy()
    with torch.no_grad():
        next(other.parameters()).add_(torch.arange(4.0))
    assert not torch.equal(policy.logits, other.logits)


def test_unknown_texts_are_refused(policy: TabularPolicy) -> None:
    with pytest.raises(UserError, match="'yellow' is not in the table"):
        policy.sample(["yellow"], seed=0, purpose="t")
    with pytest.raises(UserError, match="response 'z'"):
        policy.encode(["red"], ["z"])


def test_scorer_reads_writes_and_calibrates(policy: TabularPolicy, tmp_path: Path) -> None:
    scorer = policy.scorer(0)
    samples = policy.encode(["red", "blue"], ["b", "d"])
    assert scorer.scores(samples).tolist() == [0, 0]
    scorer.scores(samples).sum().backward()
    assert scorer.table.grad is not None and scorer.table.grad.sum() == 2 and scorer.table.grad[2, 3] == 1
    scorer = TabularScorer(PROMPTS, RESPONSES, torch.arange(12.0).reshape(3, 4), torch.ones(3))
    scorer.calibrate(1.0, 2.0)
    assert scorer.scores(samples).tolist() == [0, 5]
    scorer.calibrate(2.5, 2.5)  # what is measured on calibrated scores is a calibration of those
    assert scorer.scores(samples).tolist() == [-1, 1]
    assert scorer.values(samples).shape == (2, 1)
    assert scorer.copy(zero_head=True).scores(samples).tolist() == [0, 0]
    scorer.save(tmp_path / "s")
    again = load(tmp_path / "s")
    assert isinstance(again, TabularScorer)
    torch.testing.assert_close(again.scores(samples), scorer.copy().scores(samples))


def test_save_and_load(policy: TabularPolicy, tmp_path: Path) -> None:
    policy.save(tmp_path / "p")
    again = load(tmp_path / "p")
    assert isinstance(again, TabularPolicy)
    assert torch.equal(again.logits, policy.logits) and again.prompts == PROMPTS
    (tmp_path / "p" / "table.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path / "p")
    with pytest.raises(UserError, match=r"farm_policy.json is missing"):
        load(tmp_path)


def test_a_class_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "farm_policy.json").write_text('{"class": "pathlib.Path"}')
    with pytest.raises(UserError, match="cannot play the role"):
        load(tmp_path)


def test_an_empty_call_is_an_empty_answer(policy: TabularPolicy) -> None:
    samples = policy.sample([], seed=0, purpose="t")
    assert len(samples) == 0 and isinstance(samples, Samples)
