"""SuperHF on a table: the optimum of one batch, and where it ends."""

from functools import partial

import numpy as np
import pytest

from reference_methods.imitation.sft import SFT
from reference_methods.online.superhf import SuperHF
from reference_methods.parts.batches import TrainingRows
from tests.reference_methods.tables import best_of, learned, learning, policy_of, scorer_of

UNIFORM = np.full(4, 0.25)
BEST_OF_2 = best_of(UNIFORM, np.arange(4.0), 2)
"""(1, 3, 5, 7) / 16"""


def gradient(at: np.ndarray, beta: float) -> np.ndarray:
    """Of the loss at a policy, when the best of two of each of 16 prompts came out as often as is expected."""
    policy, reference = policy_of(at), policy_of(UNIFORM)
    rows = np.repeat(np.arange(4), (16 * BEST_OF_2).astype(int))
    best = reference.encode(["prompt 0"] * 16, [f"response {k}" for k in rows])
    method = SuperHF(beta=beta)
    loss, _ = method.loss(policy, reference, best, TrainingRows.of(best, by_prompt=True).batch(np.arange(16)))
    loss.backward()
    return policy.logits.grad.numpy()[0]


@pytest.mark.parametrize("beta", [0.0, 0.35, 0.7, 2.0])
def test_a_batch_fitted_perfectly_gives_the_mixture_of_best_of_n_and_the_reference(beta: float) -> None:
    mixture = (BEST_OF_2 + beta * UNIFORM) / (1 + beta)
    assert np.abs(gradient(mixture, beta)).max() < 1e-12
    assert np.abs(gradient(BEST_OF_2[[3, 2, 1, 0]], beta)).max() > 0.01


def test_at_the_reference_the_kl_has_no_gradient_and_the_rest_is_that_of_imitation() -> None:
    """Without the KL, a batch is one of SFT on the chosen responses."""
    assert np.allclose(gradient(UNIFORM, 2.0), gradient(UNIFORM, 0.0), atol=1e-12)
    policy = policy_of(UNIFORM)
    rows = np.repeat(np.arange(4), (16 * BEST_OF_2).astype(int))
    best = policy.encode(["prompt 0"] * 16, [f"response {k}" for k in rows])
    loss, _ = SFT().loss(policy, best, TrainingRows.of(best).batch(np.arange(16)))
    loss.backward()
    assert np.allclose(policy.logits.grad.numpy()[0], gradient(UNIFORM, 0.0), atol=1e-12)


@pytest.mark.parametrize(("beta", "top"), [(0.35, 0.7667), (0.7, 0.6294), (2.0, 0.4)])
def test_it_ends_at_the_best_response_and_beta_of_the_reference(beta: float, top: float) -> None:
    """(delta_best + beta pi_ref) / (1 + beta) for n = 16 of ten equally likely: it does not collapse."""
    method = SuperHF(beta=beta, steps=80, rollouts=16 * 32, learning_rate=0.15, warm_up=0.0)
    given = learning(policy_of(np.full(10, 0.1)), models={"reward_model": scorer_of(np.arange(10.0))})
    found = learned(method.train(given))
    # Of n = 16 the best is among the samples in all but .9^16 = .185 of the batches at the start, in none at the end.
    assert found[-1] == pytest.approx(top, abs=0.02)
    assert found[:-1] == pytest.approx(np.full(9, (1 - top) / 9), abs=0.01)


def test_more_of_the_reference_is_less_of_the_reward() -> None:
    given = learning(policy_of(np.full(10, 0.1)), models={"reward_model": scorer_of(np.arange(10.0))})
    train = partial(SuperHF, steps=20, rollouts=64, learning_rate=0.2)
    rewards = [float(learned(train(beta=beta).train(given)) @ np.arange(10.0)) for beta in (0.0, 0.7, 2.0, 100.0)]
    assert rewards == sorted(rewards, reverse=True) and rewards[-1] == pytest.approx(4.5, abs=0.1)
