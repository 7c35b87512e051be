"""LiPO: its seven losses on one list, their reductions to DPO and SLiC, and what each makes of a table."""

import math
from typing import get_args

import numpy as np
import pytest
import torch

from reference_methods.lists.lipo import LiPO, labels, ordered_share
from reference_methods.parts.listwise import ListLoss, lambda_weights, list_loss
from reference_methods.parts.losses import bradley_terry, hinge
from tests.reference_methods.tables import learned, learning, policy_of, scorer_of

KINDS = get_args(ListLoss)
SCORES = torch.tensor([[0.3, -0.2, 1.1, 0.4], [0.0, 0.5, -0.5, 2.0]], dtype=torch.float64)
PSI = torch.tensor([[0.9, 0.1, 0.4, 0.6], [0.2, 0.8, 0.5, 0.1]], dtype=torch.float64)


def gradient(kind: ListLoss, scores: torch.Tensor, psi: torch.Tensor) -> torch.Tensor:
    leaf = scores.clone().requires_grad_()
    list_loss(kind, leaf, psi).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("margin", [-2.0, 0.0, 0.7])
def test_a_list_of_two_is_a_pair(margin: float) -> None:
    """[num] lambda is .532 DPO, list_mle and one-hot softmax are DPO, the hinge is SLiC's."""
    scores, psi = torch.tensor([[margin, 0.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    dpo = bradley_terry(scores[:, 0] - scores[:, 1], psi[:, 0])
    exchanged = 1 / math.log(2) - 1 / math.log(3)
    assert round(exchanged, 3) == 0.532
    for kind, factor in (("pair_logistic", 1.0), ("list_mle", 1.0), ("softmax", 1.0), ("lambda", exchanged)):
        assert torch.allclose(list_loss(kind, scores, psi), factor * dpo)
    slic = hinge(scores[:, 0] - scores[:, 1], psi[:, 0], delta=1.0)
    assert torch.allclose(list_loss("pair_hinge", scores, psi), slic)


def test_a_lambda_pair_is_weighed_by_the_difference_of_its_gains_whatever_the_order() -> None:
    for scores in ([[1.0, 0.0]], [[0.0, 1.0]]):
        weight = lambda_weights(torch.tensor(scores), torch.tensor([[0.8, 0.3]]))[0, 0, 1]
        assert float(weight) == pytest.approx((2**0.8 - 2**0.3) * (1 / math.log(2) - 1 / math.log(3)))


def test_lambda_weights_are_symmetric_and_positive_where_labels_differ_and_need_no_gradient() -> None:
    weights = lambda_weights(SCORES.requires_grad_(), PSI)
    assert not weights.requires_grad and torch.equal(weights, weights.transpose(1, 2))
    off = ~torch.eye(4, dtype=torch.bool)
    assert bool((weights[:, off] > 0).all()) and float(weights[:, ~off].abs().max()) == 0
    # ranks 3, 4, 1, 2 by the scores: the pair of places 1 and 3
    expected = (2**0.9 - 2**0.4) * (1 / math.log(2) - 1 / math.log(4))
    assert float(weights[0, 0, 2]) == pytest.approx(expected)


def test_list_mle_is_the_likelihood_of_the_order() -> None:
    """Of 3 responses with strengths e^s: P(1 first) P(2 before 3)."""
    s = torch.tensor([[0.2, 1.0, -0.3]], dtype=torch.float64)
    psi = torch.tensor([[0.5, 0.1, 0.9]], dtype=torch.float64)  # the order 3, 1, 2
    e = s.exp()[0]
    likelihood = e[2] / e.sum() * e[0] / (e[0] + e[1])
    assert float(list_loss("list_mle", s, psi)) == pytest.approx(-math.log(likelihood))


@pytest.mark.parametrize("kind", KINDS)
def test_what_depends_on_differences_alone_has_gradients_that_sum_to_zero(kind: ListLoss) -> None:
    total = gradient(kind, SCORES.detach(), PSI).sum(1).abs()
    assert bool((total < 1e-12).all()) != kind.startswith("point")


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_within_a_list_does_not_matter(kind: ListLoss) -> None:
    moved = torch.tensor([2, 0, 3, 1])
    there = gradient(kind, SCORES.detach(), PSI)[:, moved]
    assert torch.allclose(there, gradient(kind, SCORES.detach()[:, moved], PSI[:, moved]))


def test_labels_are_chances_to_beat_the_list() -> None:
    scores = torch.tensor([[2.0, 0.0, -2.0]], dtype=torch.float64)
    up, far = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-4))
    assert labels(scores, hard=False)[0].tolist() == pytest.approx([(0.5 + up + far) / 3, 0.5, (2.5 - up - far) / 3])
    assert labels(scores, hard=True)[0].tolist() == [1.0, 0.5, 0.0]
    assert labels(torch.tensor([[3.0, 1.0]]), hard=True)[0].tolist() == [1.0, 0.0]
    assert labels(torch.zeros(1, 4), hard=True)[0].tolist() == [0.5] * 4


def test_the_share_of_pairs_in_order() -> None:
    psi = torch.tensor([[3.0, 2.0, 1.0, 1.0]])
    assert float(ordered_share(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), psi)) == 1.0
    assert float(ordered_share(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), psi)) == 0.5


UTILITIES = np.array([1.5, 0.5, -0.5, -1.5])
TABLE = {"epochs": 60, "batch_size": 40, "learning_rate": 0.05, "temperature": 1.0}


def trained(**settings: object) -> np.ndarray:
    given = learning(
        policy_of(np.full((40, 4), 0.25), prompts=40), prompts=40, models={"reward_model": scorer_of(UTILITIES, 40)}
    )
    policy = LiPO(**{**TABLE, **settings}).train(given)  # type: ignore[arg-type]
    return np.mean([learned(policy, row) for row in range(40)], axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_prefers_what_the_reward_model_prefers(kind: str) -> None:
    found = trained(loss=kind, beta=0.5, list_size=8)
    if kind == "point_mse":  # scores tied to labels that sum to K / 2 cannot all be met by one distribution
        assert found[0] > 0.25 > found[2] > found[3]
    else:
        assert found[0] > found[1] > found[2] > found[3] and found[0] > 0.3


def test_hard_lists_of_two_are_one_training_under_lambda_and_logistic() -> None:
    """They differ by a constant factor, and Adam does not see it."""
    both = [trained(loss=kind, hard=True, list_size=2, max_gradient_norm=1e9) for kind in ("lambda", "pair_logistic")]
    assert np.allclose(*both, atol=1e-4)


def test_a_list_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="`list_size` = 1 is wrong"):
        LiPO(list_size=1)
