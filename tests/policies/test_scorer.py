"""Scores and values: the head's start, the place they are read at, independence of the batch, calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.policies.scorer import LanguageModelScorer
from farm.roles.protocols import Samples, Scorer

from .conftest import PROMPTS, make_policy

OUTPUTS = ["w3 w4 w5", "", "w1", "w2 w9 w9 w1 w3", "w20 w21", "w30"]
HEADS = ["last", "last+sum"]


def scorer_of(policy: LanguageModelPolicy, head: str) -> LanguageModelScorer:
    scorer = policy.scorer(0, head=head)  # type: ignore[arg-type]
    with torch.no_grad():
        scorer.bias.fill_(0.25)
        if head == "last+sum":
            scorer.weight[1] = torch.randn(16, generator=torch.Generator().manual_seed(5))
    assert isinstance(scorer, LanguageModelScorer)
    return scorer


def by_definition(scorer: LanguageModelScorer, samples: Samples, row: int) -> tuple[float, list[float]]:
    """The score and the values of one row from one unpadded pass."""
    prompt, response = samples.prompt_tokens[row], samples.response_tokens[row]
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
    with torch.no_grad():
        parts = scorer.body.inner(input_ids=ids).last_hidden_state[0] @ scorer.weight.T
    p = len(prompt)
    more = parts[p:, 1].tolist() if scorer.head == "last+sum" else [0.0] * len(response)
    values = [float(parts[p - 1 + t, 0]) + sum(more[:t]) + 0.25 for t in range(len(response))]
    return float(parts[-1, 0]) + sum(more) + 0.25, values


@pytest.mark.parametrize("head", HEADS)
def test_scores_and_values_by_definition(policy: LanguageModelPolicy, head: str) -> None:
    scorer = scorer_of(policy, head)
    assert isinstance(scorer, Scorer)
    samples = policy.encode(PROMPTS, OUTPUTS)
    scores, values = scorer.scores(samples).detach(), scorer.values(samples).detach()
    assert scores.dtype == values.dtype == torch.float32 and values.shape == (6, 6)
    for row in range(6):
        score, before = by_definition(scorer, samples, row)
        assert float(scores[row]) == pytest.approx(score, abs=1e-4)
        np.testing.assert_allclose(values[row, : len(before)], before, atol=1e-4)
        assert not values[row, len(before) :].any()


@pytest.mark.parametrize("head", HEADS)
def test_neighbours_change_nothing(policy: LanguageModelPolicy, head: str) -> None:
    scorer = scorer_of(policy, head)
    samples = policy.sample(PROMPTS * 5, seed=0, purpose="t")
    together, values = scorer.scores(samples), scorer.values(samples)
    order = np.random.default_rng(0).permutation(30)
    torch.testing.assert_close(scorer.scores(samples.select(order)), together[order], atol=1e-4, rtol=1e-4)
    for row in (0, 7, 29):
        alone = samples.select([row])
        torch.testing.assert_close(scorer.scores(alone)[0], together[row], atol=1e-4, rtol=1e-4)
        before = scorer.values(alone)[0]
        torch.testing.assert_close(before, values[row, : len(before)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_a_response_without_a_token_is_scored_at_the_prompt(policy: LanguageModelPolicy, head: str) -> None:
    scorer = scorer_of(policy, head)
    full = policy.encode(["w1", "w2"], ["w3", "w4"])
    empty = np.zeros(0, np.int32)
    samples = Samples(
        full.prompts,
        ["", "w4"],
        full.prompt_tokens,
        [empty, full.response_tokens[1]],
        full.log_probabilities,
        full.finish_reason,
    )
    scores = scorer.scores(samples).detach()
    assert float(scores[0]) == pytest.approx(by_definition(scorer, samples, 0)[0], abs=1e-4)
    torch.testing.assert_close(scores[1], scorer.scores(full)[1].detach())


def test_the_end_is_found_by_index_even_if_it_looks_like_padding(policy: LanguageModelPolicy) -> None:
    full = policy.encode(["w1"], ["w3 w4"])
    zero = np.array([9, 0, 0], np.int32)  # id 0 is the padding token, and a policy may write it
    samples = Samples(["w1"], [""], full.prompt_tokens, [zero], full.log_probabilities, ["length"])
    scorer = scorer_of(policy, "last")
    assert float(scorer.scores(samples).detach()) == pytest.approx(by_definition(scorer, samples, 0)[0], abs=1e-4)
    assert policy.log_probabilities(samples)[1].all()


def test_the_head_starts_small_and_depends_on_the_seed_alone() -> None:
    policy = make_policy()
    a, b, c = (policy.scorer(s) for s in (0, 0, 1))
    assert torch.equal(a.weight, b.weight) and not torch.equal(a.weight, c.weight)
    draws = torch.cat([policy.scorer(s).weight.detach() for s in range(60)])
    assert float(draws.std()) == pytest.approx(17**-0.5, rel=0.1) and not a.bias.any()
    assert a.weight.dtype == torch.float32
    assert not policy.scorer(0, head="last+sum").weight[1].any()
    assert make_policy(scorer_head="last+sum").scorer(0).head == "last+sum"


def test_training_a_scorer_leaves_the_policy_alone(policy: LanguageModelPolicy) -> None:
    scorer = policy.scorer(0)
    samples = policy.encode(PROMPTS, OUTPUTS)
    before = policy.log_probabilities(samples)[0].detach()
    optimizer = torch.optim.SGD(scorer.parameters(), lr=0.1)
    first = scorer.scores(samples).sum()
    first.backward()
    assert all(p.grad is not None for p in scorer.parameters())
    optimizer.step()
    assert float(scorer.scores(samples).detach().sum()) < float(first.detach())
    assert torch.equal(before, policy.log_probabilities(samples)[0].detach())


def test_calibration_composes_and_zero_heads_forget_it(policy: LanguageModelPolicy) -> None:
    scorer = scorer_of(policy, "last")
    samples = policy.encode(PROMPTS, OUTPUTS)
    raw = scorer.scores(samples).detach()
    scorer.calibrate(float(raw.mean()), float(raw.std()))
    torch.testing.assert_close(scorer.scores(samples).detach(), (raw - raw.mean()) / raw.std())
    scorer.calibrate(1.0, 2.0)
    torch.testing.assert_close(scorer.scores(samples).detach(), ((raw - raw.mean()) / raw.std() - 1) / 2)
    torch.testing.assert_close(scorer.copy().scores(samples), scorer.scores(samples))
    zero = scorer.copy(zero_head=True)
    assert not zero.scores(samples).any() and not zero.values(samples).any()
    with pytest.raises(ValueError, match="positive"):
        scorer.calibrate(0.0, 0.0)


@pytest.mark.parametrize("head", HEADS)
def test_save_and_load(policy: LanguageModelPolicy, head: str, tmp_path: Path) -> None:
    scorer = scorer_of(policy, head)
    scorer.calibrate(0.5, 3.0)
    scorer.save(tmp_path)
    again = load(tmp_path)
    samples = policy.encode(PROMPTS, OUTPUTS)
    assert isinstance(again, LanguageModelScorer) and again.head == head
    assert torch.equal(again.scores(samples), scorer.scores(samples))
    assert torch.equal(again.values(samples), scorer.values(samples))
