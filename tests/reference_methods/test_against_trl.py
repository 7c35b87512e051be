"""The losses of TRL 1.16 on the same random log-probabilities: an implementation that shares no line with ours.

TRL's trainers are not constructed: their loss functions are called with a stand-in for the trainer and for the model,
so that only the formula is compared. Where both differ on purpose, the test says how; docs/paper_index.md lists it too.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.ipo import IPO
from reference_methods.pairs.orpo import ORPO
from reference_methods.pairs.simpo import SimPO
from reference_methods.pairs.slic import SLiC
from reference_methods.parts import kl
from reference_methods.parts.aggregation import aggregate
from reference_methods.parts.losses import bradley_terry, clipped_policy_gradient, log_odds, prospect
from reference_methods.parts.pairs import PairMethod, Pairs

pytest.importorskip("trl", reason="TRL is the oracle of these tests: pip install -e '.[oracles]'")

B, T = 6, 7


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random token log-probabilities, 0 where masked, and their mask."""
    lengths = torch.randint(1, T + 1, (rows,), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(T)[None] < lengths[:, None]
    return torch.where(mask, -draw(rows, T, seed=seed).abs() - 0.05, 0.0), mask


def trainer(**settings: Any) -> Any:
    """A stand-in for a trainer on one process."""
    whole = MagicMock(name="trainer")
    whole.accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction="sum": x,
    )
    whole._metrics = defaultdict(lambda: defaultdict(list))
    whole._total_train_tokens, whole._tp_size, whole.aux_loss_enabled = 0, 1, False
    for name, value in settings.items():
        setattr(whole, name, value)
    return whole


def outputs(log_probabilities: Tensor) -> Any:
    """What a model with TRL's fused head returns."""
    nothing = torch.zeros_like(log_probabilities)
    return SimpleNamespace(
        log_probs=log_probabilities, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool(), aux_loss=None
    )


def same(ours: Tensor, theirs: Tensor, parameters: Tensor) -> None:
    gradients = [torch.autograd.grad(loss, parameters, retain_graph=True)[0] for loss in (ours, theirs)]
    assert torch.allclose(ours, theirs.to(ours), atol=1e-6)
    assert torch.allclose(*gradients, atol=1e-6)


# --- pairs ---------------------------------------------------------------------------------------------------------


def dpo_trainer_loss(written: Tensor, mask: Tensor, reference: Tensor, loss_type: str, **settings: Any) -> Tensor:
    from trl import DPOTrainer

    given = {"beta": 0.1, "label_smoothing": 0.0, **settings}
    fake = trainer(
        loss_types=[loss_type],
        loss_weights=[1.0],
        precompute_ref_logps=True,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        **given,
    )
    completion = torch.nn.functional.pad(mask.long(), (1, 0))
    sums = (reference * mask).sum(1)
    inputs = {
        "input_ids": torch.zeros_like(completion),
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
        "ref_chosen_logps": sums[:B],
        "ref_rejected_logps": sums[B:],
    }
    loss: Tensor = DPOTrainer._compute_loss(fake, lambda **_: outputs(written), inputs, return_outputs=False)
    return loss


def as_pairs(written: Tensor, mask: Tensor, reference: Tensor) -> Pairs:
    lengths = mask.sum(1).view(2, B).double()
    return Pairs(
        written.sum(1).view(2, B), (reference * mask).sum(1).view(2, B), lengths, torch.ones(B, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("method", "loss_type", "settings"),
    [
        (DPO(beta=0.3), "sigmoid", {"beta": 0.3}),
        (DPO(beta=0.3, label_smoothing=0.2, robust=True), "robust", {"beta": 0.3, "label_smoothing": 0.2}),
        (IPO(tau=0.4), "ipo", {"beta": 0.4}),
    ],
    ids=["dpo", "robust dpo", "ipo"],
)
def test_losses_of_the_dpo_trainer(method: PairMethod, loss_type: str, settings: dict[str, float]) -> None:
    (written, mask), reference = tokens(2 * B, seed=1), -draw(2 * B, T, seed=2).abs()
    written.requires_grad_()
    theirs = dpo_trainer_loss(written, mask, reference, loss_type, **settings)
    same(method.pair_loss(as_pairs(written, mask, reference))[0].mean(), theirs, written)


def test_their_hinge_is_beta_times_an_anchored_slic() -> None:
    (written, mask), reference = tokens(2 * B, seed=1), -draw(2 * B, T, seed=2).abs()
    written.requires_grad_()
    theirs = dpo_trainer_loss(written, mask, reference, "hinge", beta=0.3)
    ours = SLiC(anchored=True, delta=1 / 0.3, regularisation=0).pair_loss(as_pairs(written, mask, reference))[0]
    same(0.3 * ours.mean(), theirs, written)


def test_our_ipo_in_sum_is_not_theirs() -> None:
    """Ours offers both; TRL has only the mean per token."""
    (written, mask), reference = tokens(2 * B, seed=1), -draw(2 * B, T, seed=2).abs()
    theirs = dpo_trainer_loss(written, mask, reference, "ipo", beta=0.4)
    ours = IPO(tau=0.4, per_token=False).pair_loss(as_pairs(written, mask, reference))[0]
    assert abs(float(ours.mean() - theirs)) > 0.1


def test_simpo_is_the_simpo_of_the_cpo_trainer() -> None:
    from trl.experimental.cpo import CPOTrainer

    written, mask = tokens(2 * B, seed=3)
    pairs = as_pairs(written.requires_grad_(), mask, torch.zeros(2 * B, T, dtype=torch.float64))
    fake = trainer(loss_type="simpo", simpo_gamma=1.0, beta=2.0, label_smoothing=0.0, alpha=0.0)
    theirs = CPOTrainer.cpo_loss(fake, *pairs.mean_log_likelihoods)[0]
    same(SimPO(beta=2.0, gamma_over_beta=0.5).pair_loss(pairs)[0].mean(), theirs.mean(), written)


def test_smoothed_simpo_differs_in_what_it_asks_of_a_flipped_label() -> None:
    """Theirs lowers the margin that was asked for; ours asks for it the other way, as a flipped label would."""
    from trl.experimental.cpo import CPOTrainer

    written, mask = tokens(2 * B, seed=3)
    pairs = as_pairs(written, mask, torch.zeros(2 * B, T, dtype=torch.float64))
    fake = trainer(loss_type="simpo", simpo_gamma=1.0, beta=2.0, label_smoothing=0.2, alpha=0.0)
    theirs = CPOTrainer.cpo_loss(fake, *pairs.mean_log_likelihoods)[0]
    ours, margin = SimPO(beta=2.0, gamma_over_beta=0.5, label_smoothing=0.2).pair_loss(pairs)
    assert torch.allclose(theirs, bradley_terry(margin - 1.0, pairs.label, 0.2))
    assert not torch.allclose(theirs, ours)


def test_the_odds_ratio_of_the_orpo_trainer() -> None:
    from trl.experimental.orpo import ORPOTrainer

    written, mask = tokens(2 * B, seed=4)
    pairs = as_pairs(written.requires_grad_(), mask, torch.zeros(2 * B, T, dtype=torch.float64))
    theirs = -ORPOTrainer.odds_ratio_loss(trainer(beta=0.25), *pairs.mean_log_likelihoods)[0]
    ours = ORPO(odds_weight=0.25).pair_loss(pairs)[0] + pairs.mean_log_likelihoods[0]
    gradients = [torch.autograd.grad(x.sum(), written, retain_graph=True)[0] for x in (ours, theirs)]
    assert torch.allclose(ours.float(), theirs.float(), atol=1e-5)  # theirs computes in float32
    assert torch.allclose(*gradients, atol=1e-5)
    assert torch.isfinite(log_odds(torch.zeros(1)))


def test_the_kto_trainer() -> None:
    from trl import KTOTrainer

    (written, mask), reference = tokens(2 * B, seed=5), -draw(2 * B, T, seed=6).abs()
    elsewhere, elsewhere_mask = tokens(2 * B, seed=7)
    label = torch.tensor([True, False] * B)
    fake = trainer(
        calculate_KL=True,
        precompute_ref_logps=True,
        loss_type="kto",
        beta=0.5,
        desirable_weight=1.2,
        undesirable_weight=0.7,
    )
    fake._compute_kl_logps = lambda model, batch: elsewhere.sum(1)
    completion = torch.nn.functional.pad(mask.long(), (1, 0))
    inputs = {
        "input_ids": torch.zeros_like(completion),
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
        "label": label,
        "ref_logps": (reference * mask).sum(1),
        "ref_KL_logps": (2 * elsewhere * elsewhere_mask).sum(1),
    }
    written.requires_grad_()
    theirs = KTOTrainer._compute_loss(fake, lambda **_: outputs(written), inputs, return_outputs=False)
    point = (elsewhere - 2 * elsewhere).sum(1).mean().clamp(min=0)
    value = 0.5 * ((written - reference * mask).sum(1) - point)
    assert float(point) > 0
    same(prospect(value, label.double(), 1.2, 0.7).mean(), theirs, written)


@pytest.mark.parametrize(("margin", "centring"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.01), (0.7, 0.01)])
def test_the_reward_trainer(margin: float, centring: float) -> None:
    from trl import RewardTrainer

    scores = draw(2 * B, seed=8).requires_grad_()
    fake = trainer(args=SimpleNamespace(center_rewards_coefficient=centring or None))
    inputs: dict[str, Any] = {"attention_mask": torch.ones(2 * B, 3)}
    if margin:
        inputs["margin"] = torch.full((B,), margin, dtype=torch.float64)
    model = lambda **_: SimpleNamespace(logits=scores[:, None])  # noqa: E731
    theirs = RewardTrainer.compute_loss(fake, model, inputs)
    first, second = scores.view(2, B)
    label = torch.ones(B, dtype=torch.float64)
    ours = bradley_terry(first - second, label, offset=margin) + centring * (first + second).square()
    same(ours.mean(), theirs, scores)


# --- groups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss_type", "how", "beta", "high"),
    [
        ("grpo", "sequence_mean_token_mean", 0.04, 0.2),
        ("dr_grpo", "sequence_mean_token_sum_over_horizon", 0.0, 0.2),
        ("dapo", "token_mean", 0.0, 0.28),
        ("bnpo", "token_mean", 0.1, 0.28),
    ],
)
def test_the_losses_of_the_grpo_trainer(loss_type: str, how: Any, beta: float, high: float) -> None:
    from trl import GRPOTrainer

    (written, mask), reference = tokens(8, seed=9), -draw(8, T, seed=10).abs()
    old, advantages = written + 0.3 * draw(8, T, seed=11) * mask, draw(8, seed=12)
    written.requires_grad_()
    fake = trainer(
        _get_per_token_logps_and_entropies=lambda *_, **__: (written, torch.zeros_like(written), None),
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        epsilon_low=0.2,
        epsilon_high=high,
        loss_type=loss_type,
        use_vllm=False,
        max_completion_length=50,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
    )
    ids = torch.zeros(8, T, dtype=torch.long)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    theirs = GRPOTrainer._compute_loss(fake, None, inputs)
    losses = clipped_policy_gradient(written - old, advantages[:, None].expand_as(old), 0.2, high)
    losses = losses + beta * kl.k3(written, reference)
    same(aggregate(losses, mask, how, horizon=50), theirs, written)


def test_the_rloo_trainer() -> None:
    from trl import RLOOTrainer

    written, mask = tokens(8, seed=14)
    old, advantages = (written + 0.1 * draw(8, T, seed=15) * mask).sum(1), draw(8, seed=16)
    written.requires_grad_()
    fake = trainer(
        _get_per_token_logps_and_entropies=lambda *_, **__: (written, torch.zeros_like(written), None),
        epsilon_low=0.2,
        epsilon_high=0.2,
    )
    ids = torch.zeros(8, T, dtype=torch.long)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": mask.long(),
        "old_logps": old,
        "advantages": advantages,
    }
    theirs = RLOOTrainer._compute_loss(fake, None, inputs)
    ours = clipped_policy_gradient((written * mask).sum(1) - old, advantages, 0.2, 0.2).mean()
    same(ours, theirs, written)
