"""What each estimator of KL(pi || pi_ref) is as a value and as a gradient, by full enumeration.

An autoregressive policy over 3 tokens and 3 places, with free logits for every prefix: 27 sequences, exactly.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from reference_methods.parts import kl

VOCABULARY, PLACES = 3, 3
PREFIXES = [p for t in range(PLACES) for p in itertools.product(range(VOCABULARY), repeat=t)]
SEQUENCES = list(itertools.product(range(VOCABULARY), repeat=PLACES))
WHERE = torch.tensor([[PREFIXES.index(y[:t]) for t in range(PLACES)] for y in SEQUENCES])
TOKENS = torch.tensor(SEQUENCES)


def tokens(logits: Tensor) -> Tensor:
    """Log-probability of every token of every sequence, [27, 3]."""
    return torch.log_softmax(logits, -1)[WHERE, TOKENS]


@pytest.fixture(scope="module")
def logits() -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(0)
    policy, reference = (generator.normal(size=(len(PREFIXES), VOCABULARY)) for _ in range(2))
    return torch.from_numpy(policy).requires_grad_(), torch.from_numpy(reference)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    first, second = tokens(p).sum(1), tokens(q).sum(1)
    return (first.exp() * (first - second)).sum()


def gradient(loss: Tensor, parameters: Tensor) -> Tensor:
    return torch.autograd.grad(loss, parameters)[0]


def error(found: Tensor, true: Tensor) -> float:
    return float((found - true).norm() / true.norm())


def test_values(logits):
    policy, reference = logits[0].detach(), logits[1]
    new, ref = tokens(policy), tokens(reference)
    weight, true = new.sum(1).exp(), float(divergence(policy, reference))
    assert float((weight * kl.k1(new, ref).sum(1)).sum()) == pytest.approx(true)
    assert float((weight * kl.k3(new, ref).sum(1)).sum()) == pytest.approx(true)
    assert float((weight * kl.k3(new.sum(1), ref.sum(1))).sum()) == pytest.approx(true)
    assert float((weight * kl.k2(new, ref).sum(1)).sum()) != pytest.approx(true, rel=0.05)
    assert bool((kl.k3(new, ref) >= 0).all())
    every, every_ref = torch.log_softmax(policy, -1)[WHERE], torch.log_softmax(reference, -1)[WHERE]
    assert float((weight[:, None] * kl.full(every, every_ref)).sum()) == pytest.approx(true)


def test_gradients(logits):
    """The expected gradient of each estimator, from samples of the current policy."""
    policy, reference = logits
    reverse, forward = gradient(divergence(policy, reference), policy), gradient(divergence(reference, policy), policy)
    ref = tokens(reference)
    weight = tokens(policy).sum(1).exp().detach()

    def expected(loss: Tensor) -> Tensor:
        return gradient((weight * loss).sum(), policy)

    new = tokens(policy)
    in_reward = kl.k1(new, ref).detach()
    to_go = in_reward.flip(1).cumsum(1).flip(1)
    assert error(expected((to_go * new).sum(1)), reverse) < 1e-12  # PPO, REINFORCE with rewards to go
    assert error(expected(in_reward.sum(1) * tokens(policy).sum(1)), reverse) < 1e-12  # RLOO
    new = tokens(policy)
    assert error(expected(kl.k2(new.sum(1), ref.sum(1))), reverse) < 1e-12
    new = tokens(policy)
    assert float(expected(kl.k1(new, ref).sum(1)).norm()) < 1e-12  # no gradient at all
    of_sequences = expected(kl.k3(tokens(policy).sum(1), ref.sum(1)))
    assert error(of_sequences, forward) < 1e-12  # the other direction
    assert error(of_sequences, reverse) == pytest.approx(0.662, abs=1e-3)
    for estimator, missed in ((kl.k2, 0.300), (kl.k3, 0.616)):  # of single tokens: neither direction
        per_token = expected(estimator(tokens(policy), ref).sum(1))
        assert error(per_token, reverse) == pytest.approx(missed, abs=1e-3)
        assert error(per_token, forward) > 0.1


def test_clamping_biases_the_value(logits):
    policy, reference = logits[0].detach(), logits[1]
    new, ref = tokens(policy), tokens(reference)
    weight = new.sum(1).exp()
    clamped = float((weight * kl.k1_clamped(new, ref).sum(1)).sum())
    assert clamped > float(divergence(policy, reference)) * 1.05
