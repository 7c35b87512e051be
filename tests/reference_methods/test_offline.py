"""The methods of fixed pairs beside DPO (IPO, KTO, SLiC, ORPO, SimPO): checks in the table, and identities."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from reference_methods.imitation.feedme import FeedME
from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.ipo import IPO
from reference_methods.pairs.kto import KTO, mismatched
from reference_methods.pairs.orpo import ORPO
from reference_methods.pairs.simpo import SimPO
from reference_methods.pairs.slic import SLiC
from reference_methods.parts.losses import bradley_terry, hinge, log_odds, prospect
from reference_methods.parts.pairs import PairMethod, Pairs
from reference_methods.parts.preferences import Preferences
from tests.reference_methods.tables import (
    REFERENCE,
    all_pairs,
    distance,
    learned,
    learning,
    policy_of,
    recorder,
    tilt,
)
from tests.reference_methods.tables import (
    bradley_terry as of_utilities,
)

CYCLE = np.array([[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]])
EXACT = {"epochs": 400, "batch_size": 10_000, "learning_rate": 0.05, "schedule": "cosine", "max_gradient_norm": 1e6}
ONE_PAIR = np.array([[0.5, 1.0], [0.0, 0.5]])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs_of(seed: int = 0, lengths: Tensor | None = None, label: Tensor | None = None) -> tuple[Pairs, Tensor]:
    """Eight random pairs, and the log-likelihoods to differentiate by."""
    written = (-4 - draw(2, 8, seed=seed).abs()).requires_grad_()
    counts = torch.randint(1, 9, (2, 8), generator=torch.Generator().manual_seed(seed)) if lengths is None else lengths
    labels = torch.ones(8, dtype=torch.float64) if label is None else label
    return Pairs(written, -4 - draw(2, 8, seed=seed + 1).abs(), counts.double(), labels), written


def same(first: Tensor, second: Tensor, parameters: Tensor, tolerance: float = 1e-12) -> None:
    """Equal in value and in gradient."""
    gradients = [torch.autograd.grad(loss, parameters, retain_graph=True)[0] for loss in (first, second)]
    assert torch.allclose(first, second, atol=tolerance)
    assert torch.allclose(*gradients, atol=tolerance)


# --- IPO -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_ipo_tilts_by_the_win_rate_against_the_writers_of_the_pairs(tau):
    copies = np.round(100 * np.outer(REFERENCE, REFERENCE))
    found = IPO(tau=tau, **EXACT).train(learning(policy_of(REFERENCE), feedback={"pairs": all_pairs(CYCLE, copies)}))
    assert distance(learned(found), tilt(REFERENCE, CYCLE @ REFERENCE, tau)) < 2e-3


def test_ipo_gives_a_pair_that_is_always_won_a_finite_margin_and_dpo_does_not():
    given = learning(policy_of([0.5, 0.5]), feedback={"pairs": all_pairs(ONE_PAIR)})
    settings = {**EXACT, "epochs": 800}
    margin = float(np.diff(np.log(learned(IPO(tau=0.25, **settings).train(given))))[0])
    assert -margin == pytest.approx(1 / (2 * 0.25), abs=1e-3)
    assert -np.diff(np.log(learned(DPO(beta=0.25, **settings).train(given))))[0] > 10


def test_ipo_of_a_soft_label_is_the_mean_over_both_labels_up_to_a_constant():
    label = torch.rand(8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    soft, written = pairs_of(label=label)
    one, none = replace(soft, label=torch.ones_like(label)), replace(soft, label=torch.zeros_like(label))
    method = IPO(tau=0.4)
    mixed = label * method.pair_loss(one)[0] + (1 - label) * method.pair_loss(none)[0]
    gradients = [torch.autograd.grad(x.sum(), written)[0] for x in (method.pair_loss(soft)[0], mixed)]
    assert torch.allclose(*gradients)


def test_ipo_per_token_and_in_sum_agree_on_responses_of_one_token():
    pairs, written = pairs_of(lengths=torch.ones(2, 8))
    same(IPO(per_token=True).pair_loss(pairs)[0].sum(), IPO(per_token=False).pair_loss(pairs)[0].sum(), written)


# --- KTO -----------------------------------------------------------------------------------------------------------


def test_kto_of_a_pair_around_zero_is_apo_zero():
    ratio = draw(2).requires_grad_()
    found = prospect(0.7 * ratio, torch.tensor([1.0, 0.0], dtype=torch.float64)).sum()
    apo_zero = 1 - torch.sigmoid(0.7 * ratio[0]) + torch.sigmoid(0.7 * ratio[1])
    same(found, apo_zero, ratio)


def test_kto_pulls_hardest_at_the_reference_point_and_alike_on_both_sides():
    value = torch.linspace(-4, 4, 81, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(prospect(value, torch.ones(81, dtype=torch.float64)).sum(), value)
    assert int(slope.abs().argmax()) == 40
    assert torch.allclose(slope, slope.flip(0))


def test_kto_learns_which_responses_are_liked():
    utilities = np.array([-3.0, 0.0, 3.0])
    log, record = recorder()
    given = replace(learning(policy_of(REFERENCE), feedback={"pairs": all_pairs(of_utilities(utilities))}), log=record)
    found = learned(KTO(beta=1.0, epochs=200, batch_size=10_000, learning_rate=0.05).train(given))
    ratio = np.log(found / REFERENCE)
    assert ratio[2] > 0 > ratio[0] and ratio[2] > ratio[1]  # the middle one is liked as often as not
    assert log[0]["loss"] == pytest.approx(0.5, abs=1e-6)
    assert log[0]["reference_point"] == 0 and all(m["reference_point"] >= 0 for m in log)


@pytest.mark.parametrize("counts", [[1] * 6, [4, 1, 2, 3, 1], [3, 3]], ids=str)
def test_kto_compares_with_responses_to_other_prompts(counts):
    """Every prompt has responses of its own, and as many pairs as ``counts`` says."""
    asked = [f"prompt {i}" for i, count in enumerate(counts) for _ in range(count)]
    k = 2 * len(asked)
    pairs = pd.DataFrame(
        {
            "instruction": asked,
            "output_1": [f"response {2 * j}" for j in range(len(asked))],
            "output_2": [f"response {2 * j + 1}" for j in range(len(asked))],
            "preference": 1.0,
        }
    )
    policy = policy_of(np.full((len(counts), k), 1 / k), prompts=len(counts))
    known = Preferences.read(learning(policy, prompts=len(counts), feedback={"pairs": pairs}))
    found = mismatched(known, seed=1)
    assert found.prompts == asked * 2
    assert [int(t[0]) for t in found.prompt_tokens] == [int(t[0]) for t in known.first.prompt_tokens] * 2
    assert sorted(found.outputs) == sorted(known.first.outputs + known.second.outputs)  # each serves once
    answered = dict(zip(known.first.outputs + known.second.outputs, asked * 2, strict=True))
    assert all(answered[output] != prompt for output, prompt in zip(found.outputs, found.prompts, strict=True))


def test_kto_on_one_prompt_compares_with_the_other_pairs():
    pairs = Preferences.read(learning(policy_of(REFERENCE), feedback={"pairs": all_pairs(CYCLE)}))
    found = mismatched(pairs, seed=1)
    own = pairs.first.outputs + pairs.second.outputs
    assert sorted(found.outputs) == sorted(own) and found.outputs != own


def test_ktos_log_ratios_are_means_of_the_liked_and_of_the_others():
    """A batch of one response has one side alone, and its log ratio follows from the loss, 1 - sigma(beta (h - z0))."""
    log, record = recorder()
    pairs = all_pairs(ONE_PAIR, np.array([[0, 1], [0, 0]]))
    given = replace(learning(policy_of([0.5, 0.5]), feedback={"pairs": pairs}), log=record)
    KTO(beta=1.0, epochs=6, batch_size=1, learning_rate=0.2, schedule="constant", warm_up=0).train(given)
    for line in log[1:]:
        value = math.log(1 / line["loss"] - 1)
        liked, other = line["reference_point"] + value, line["reference_point"] - value
        assert line["chosen_log_ratio"] == pytest.approx(liked if line["chosen_log_ratio"] else 0, abs=1e-5)
        assert line["rejected_log_ratio"] == pytest.approx(other if line["rejected_log_ratio"] else 0, abs=1e-5)
        assert (line["chosen_log_ratio"] == 0) != (line["rejected_log_ratio"] == 0)


# --- SLiC ----------------------------------------------------------------------------------------------------------


def test_slic_asks_for_nothing_beyond_its_margin():
    margin = torch.tensor([0.99, 1.01, -3.0], requires_grad=True)
    hinge(margin, torch.ones(3), 1.0).sum().backward()
    assert margin.grad.tolist() == [-1, 0, -1]
    tied = hinge(torch.tensor([0.0]), torch.tensor([0.5]), 1.0)
    assert tied.item() == 1.0


def test_the_hinge_of_dpo_is_a_scaled_anchored_slic():
    pairs, written = pairs_of()
    beta = 0.3
    scaled = beta * SLiC(anchored=True, delta=1 / beta, regularisation=0).pair_loss(pairs)[0]
    of_dpo = (1 - beta * (pairs.log_ratio[0] - pairs.log_ratio[1])).relu()
    same(scaled.sum(), of_dpo.sum(), written)


class HingedDPO(DPO):
    """DPO with another loss, as a package of somebody's own would write it."""

    def pair_loss(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        margin = self.beta * (pairs.log_ratio[0] - pairs.log_ratio[1])
        return hinge(margin, pairs.label, 1.0), margin


def test_a_loss_that_replaces_dpos_is_not_held_to_its_first_value():
    """It was refused: before the first update loss must be 0.6931 and is 1.0000."""
    settings = {**EXACT, "epochs": 3, "learning_rate": 0.01}
    given = learning(policy_of([0.5, 0.5]), feedback={"pairs": all_pairs(ONE_PAIR)})
    of_slic = SLiC(anchored=True, delta=1.0, regularisation=0, **settings).train(given)
    assert distance(learned(HingedDPO(beta=1.0, **settings).train(given)), learned(of_slic)) < 1e-9


def test_slic_stops_at_its_margin_in_the_table():
    given = learning(policy_of([0.5, 0.5]), feedback={"pairs": all_pairs(ONE_PAIR)})
    found = learned(SLiC(delta=1.5, regularisation=0, **{**EXACT, "learning_rate": 0.01}).train(given))
    assert 1.5 <= math.log(found[0] / found[1]) < 1.8  # Adam's momentum carries it a little beyond


# --- ORPO ----------------------------------------------------------------------------------------------------------


def test_orpo_without_its_odds_is_feedme_with_all_responses_alike():
    pairs = all_pairs(of_utilities(np.array([0.3, -0.5, 1.1])), np.ones((3, 3)))
    settings = {**EXACT, "epochs": 20}
    given = learning(policy_of(REFERENCE), feedback={"pairs": pairs})
    fine_tuned = FeedME(aggregation="sequence_mean_token_mean", **settings).train(given)
    assert distance(learned(ORPO(odds_weight=0, **settings).train(given)), learned(fine_tuned)) < 1e-6


def test_the_gradient_of_the_odds_ratio():
    pairs, written = pairs_of()
    mean = pairs.mean_log_likelihoods
    odds = ORPO(odds_weight=1.0).pair_loss(pairs)[0] + mean[0]
    (found,) = torch.autograd.grad(odds.sum(), written, retain_graph=True)
    ratio = log_odds(mean[0]) - log_odds(mean[1])
    pull = torch.sigmoid(-ratio) / (1 - mean.exp()) / pairs.lengths
    expected = torch.stack([-pull[0], pull[1]])
    assert torch.allclose(found, expected)
    assert torch.isfinite(log_odds(torch.zeros(1)))


# --- SimPO ---------------------------------------------------------------------------------------------------------


def test_simpo_does_not_see_length_at_equal_mean():
    pairs, _ = pairs_of()
    doubled = replace(pairs, log_likelihoods=2 * pairs.log_likelihoods, lengths=2 * pairs.lengths)
    assert torch.allclose(SimPO().pair_loss(pairs)[0], SimPO().pair_loss(doubled)[0])


def test_simpo_without_gamma_at_equal_lengths_is_dpo_without_a_reference():
    pairs, written = pairs_of(lengths=torch.full((2, 8), 5.0))
    bare = replace(pairs, reference=torch.zeros(2, 8, dtype=torch.float64))
    same(
        SimPO(beta=2.0, gamma_over_beta=0).pair_loss(pairs)[0].sum(),
        DPO(beta=2.0 / 5).pair_loss(bare)[0].sum(),
        written,
    )


def test_gamma_is_a_margin_asked_for():
    pairs, written = pairs_of()
    margin = SimPO(gamma_over_beta=0).pair_loss(pairs)[1]
    same(
        SimPO(beta=2.0, gamma_over_beta=0.5).pair_loss(pairs)[0].sum(),
        bradley_terry(margin - 1, pairs.label).sum(),
        written,
    )


# --- all of them ---------------------------------------------------------------------------------------------------

METHODS: dict[str, PairMethod] = {
    "dpo": DPO(label_smoothing=0.1),
    "robust dpo": DPO(label_smoothing=0.1, robust=True),
    "ipo": IPO(),
    "slic": SLiC(),
    "anchored slic": SLiC(anchored=True),
    "orpo": ORPO(),
    "simpo": SimPO(label_smoothing=0.1),
}


@pytest.mark.parametrize("name", METHODS)
def test_showing_a_pair_the_other_way_round_changes_nothing(name):
    label = torch.rand(8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pairs, written = pairs_of(label=label)
    turned = Pairs(pairs.log_likelihoods.flip(0), pairs.reference.flip(0), pairs.lengths.flip(0), 1 - label)
    (one, margin), (other, opposite) = METHODS[name].pair_loss(pairs), METHODS[name].pair_loss(turned)
    same(one.sum(), other.sum(), written)
    assert torch.allclose(one, other) and torch.allclose(margin, -opposite)


@pytest.mark.parametrize("name", METHODS)
def test_the_preferred_response_rises_over_the_other(name):
    pairs, written = pairs_of()
    method = METHODS[name]
    if isinstance(method, DPO | SimPO):
        method = replace(method, label_smoothing=0)  # smoothed, a pair that is far apart is pulled together
    (gradient,) = torch.autograd.grad(method.pair_loss(pairs)[0].sum(), written)
    assert bool((gradient[0] <= 0).all()) and bool((gradient[1] >= 0).all())
    assert float(gradient.abs().sum()) > 0
