"""Rewards of sets: the best policies at a given KL, leave-one-out credit, and two sets that are contrasted."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_softmax

from eval.measures.frontier import Frontier
from reference_methods.studies.set_rewards import (
    CLASS,
    QUALITY,
    SIZES,
    SetRewards,
    counted,
    entropy_of,
    leave_one_out,
)


def best_at(kl: float, weight: float) -> tuple[float, float]:
    """Quality and entropy of the policy with the most quality + weight x entropy among those at this KL: with shares q
    of the classes, q ~ (p_0^m e^quality)^(1 / (m + weight))."""
    start = np.log(SIZES / SIZES.sum())

    def policy(log_m: float) -> np.ndarray:
        m = np.exp(log_m)
        return np.asarray(np.exp(log_softmax((m * start + np.array([0.0, 1.0, 0.0])) / (m + weight))))

    def excess(log_m: float) -> float:
        q = policy(log_m)
        return float((q * (np.log(q) - start)).sum() - kl)

    q = policy(brentq(excess, -6, 6))
    return float(q[1]), float(entropy_of(q))


@pytest.mark.parametrize(
    ("weight", "quality", "entropy"), [(0.0, 0.617, 0.799), (0.5, 0.586, 0.926), (1.0, 0.524, 1.012)]
)
def test_the_best_policies_at_a_kl_of_three_tenths(weight: float, quality: float, entropy: float) -> None:
    assert best_at(0.3, weight) == pytest.approx((quality, entropy), abs=6e-4)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_leave_one_out_credit_finds_them(weight: float) -> None:
    """Not exactly: its path is not that of the optima, and the entropy of eight answers is less than of all."""
    curves = SetRewards(weight=weight, sets=128, steps=30).tables(2)
    found = [
        Frontier(0.3, y=y, table="curves").values(curves, "leave_one_out")["value"][0] for y in ("quality", "entropy")
    ]
    assert found == pytest.approx(best_at(0.3, weight), abs=0.05)


def test_of_a_mean_of_qualities_leave_one_out_credit_is_rloos_advantage() -> None:
    study = SetRewards(weight=0.0, steps=20)
    draws = np.random.default_rng(1)
    answers, of = study.drawn(np.zeros(12), draws)
    np.testing.assert_allclose(study.credit(answers, of), leave_one_out(QUALITY[answers]), atol=1e-12)
    curves = study.tables(1)["curves"].set_index("method")
    one, other = (curves.loc[name, "kl"].to_numpy() for name in ("leave_one_out", "rloo"))
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_credit_is_what_a_set_loses_without_an_answer() -> None:
    study = SetRewards(weight=2.0, size=4, sets=1)
    answers = np.array([[0, 1, 1, 11]])
    of = CLASS[answers]

    def reward(of: np.ndarray, answers: np.ndarray) -> float:
        return float(QUALITY[answers].mean() + 2.0 * entropy_of(np.bincount(of, minlength=3) / len(of)))

    whole = reward(of[0], answers[0])
    without = [reward(np.delete(of[0], i), np.delete(answers[0], i)) for i in range(4)]
    np.testing.assert_allclose(study.credit(answers, of)[0], 4 * (whole - np.array(without)))


def test_places_change_sides_where_the_positive_set_gains_by_it() -> None:
    qualities = SetRewards(weight=0.0, size=3, sets=1)
    first, second = np.array([[1, 5, 0]]), np.array([[6, 2, 11]])  # quality 1, 0, 0 and 0, 1, 0
    assert qualities.swapped(first, CLASS[first], second, CLASS[second]).tolist() == [[False, True, False]]
    diverse = SetRewards(weight=5.0, size=3, sets=1)
    first, second = np.array([[5, 6, 7]]), np.array([[0, 1, 8]])  # one class against three: all that helps changes
    changed = diverse.swapped(first, CLASS[first], second, CLASS[second])
    better, worse = np.where(changed, second, first), np.where(changed, first, second)
    gain = entropy_of(counted(CLASS[better]) / 3) - entropy_of(counted(CLASS[worse]) / 3)
    assert float(gain[0]) > 0


def test_the_entropy_in_the_reward_makes_both_learners_more_diverse_at_equal_kl_and_dealt_classes_do_not() -> None:
    def entropy(method: str, **settings: object) -> float:
        tables = SetRewards(**settings, sets=48, steps=60).tables(3)  # type: ignore[arg-type]
        return float(Frontier(0.2, y="entropy", table="curves").values(tables, method)["value"][0])

    for method in ("leave_one_out", "contrast"):
        plain = entropy(method, weight=0.0)
        assert entropy(method, weight=1.0) > plain + 0.05
        assert entropy(method, weight=1.0, dealt=True) == pytest.approx(plain, abs=0.04)
