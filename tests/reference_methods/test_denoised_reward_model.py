"""Labels that an ensemble doubts: what is made of them, and what reward models make of that."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from farm.base.errors import UserError
from reference_methods.models.denoised_reward_model import DenoisedRewardModel
from reference_methods.models.reward_model import RewardModel
from reference_methods.parts.label_weights import flipped, personal_weights, softened
from reference_methods.parts.preferences import Preferences
from reference_methods.studies.label_strength import LabelStrength
from reference_methods.studies.parts import auroc as area_under
from reference_methods.studies.parts import drawn_labels, fit
from tests.reference_methods.tables import REFERENCE, all_pairs, bradley_terry, learning, policy_of, recorder

UTILITIES = np.array([0.0, 0.7, -0.4])
EXACT: dict[str, Any] = {"epochs": 100, "batch_size": 12, "learning_rate": 0.1, "warm_up": 0.0, "held_out_share": 0.0}
EXACT |= {"calibration_samples": 0}


def detection(flips: float, temperature: float, points: int = 200_001) -> tuple[float, float]:
    """(AUROC, precision of the lowest share ``flips``) of the true strength, for utilities N(0, 1).

    With t = the lead of the response that is *not* preferred, of density g = N(0, 2) before any label is given: of
    honest labels 2 g(t) sigma(-t / T), of flipped ones 2 g(t) sigma(t / T).
    """
    t = np.linspace(-12, 12, points)
    g = np.exp(-(t**2) / 4) / np.sqrt(4 * np.pi) * (t[1] - t[0])
    clean, turned = 2 * g * expit(-t / temperature), 2 * g * expit(t / temperature)
    area = float(turned @ (np.cumsum(clean) - clean / 2))
    above = np.cumsum(((1 - flips) * clean + flips * turned)[::-1])[::-1]
    return area, float(turned[above <= flips].sum())


def test_how_well_the_true_strength_tells_flipped_labels() -> None:
    """[num] flips .2, T .5, utilities N(0, 1): AUROC .912, precision of the lowest fifth .686."""
    auroc, precision = detection(0.2, 0.5)
    assert round(auroc, 3) == 0.912 and round(precision, 3) == 0.686
    assert detection(0.2, 1e9) == pytest.approx((0.5, 0.2), abs=1e-3)  # labels of a coin tell nothing
    draws = np.random.default_rng(4)
    lead = draws.normal(size=200_000) - draws.normal(size=200_000)
    signs, wrong = drawn_labels(lead / 0.5, 0.2, draws)
    assert area_under(-signs * lead, wrong) == pytest.approx(auroc, abs=0.005)
    assert wrong[np.argsort(signs * lead)[: len(lead) // 5]].mean() == pytest.approx(precision, abs=0.006)
    assert detection(0.2, 1e-3) == pytest.approx((1.0, 1.0), abs=2e-3)


def test_a_margin_of_a_linear_model_moves_the_fit_by_the_model_and_orders_nothing_anew() -> None:
    """[num] with m = x . v the fit is v + the plain fit, whatever v."""
    draws = np.random.default_rng(3)
    x, v = draws.normal(size=(400, 3)), np.array([0.3, -1.0, 0.2])
    signs = np.where(draws.random(400) < expit(x @ [1.0, 0.5, -0.5]), 1.0, -1.0)
    plain = fit(x, signs, ridge=1e-9)
    moved = fit(x, signs, ridge=1e-9, lead=x @ v)
    assert moved == pytest.approx(plain + v, abs=1e-6)
    own = fit(x, signs, ridge=1e-9, lead=x @ plain, start=plain)
    assert own == pytest.approx(2 * plain, abs=1e-6)


def test_the_lowest_strengths_are_turned_round_and_only_doubted_labels_softened() -> None:
    label, strength = np.array([1.0, 0.0, 1.0, 0.0]), np.array([2.0, -3.0, -1.0, 0.5])
    assert flipped(label, strength, 0.25).tolist() == [1.0, 1.0, 1.0, 0.0]
    assert flipped(label, strength, 0.0).tolist() == label.tolist()
    assert softened(label, strength).tolist() == pytest.approx([1.0, 1 - expit(-3.0), expit(-1.0), 0.0])


def test_personal_weights_are_within_a_user_and_their_mean_is_one() -> None:
    loss, users = np.array([0.1, 2.0, 0.5, 5.0, 5.0]), np.array(["a", "a", "a", "b", "b"], dtype=object)
    weights = personal_weights(loss, users, 1.0)
    assert weights[:3].mean() == pytest.approx(1) and weights[3:].tolist() == pytest.approx([1, 1])
    assert weights[0] / weights[1] == pytest.approx(np.exp(1.9))
    assert personal_weights(loss + 1000, users, 1.0) == pytest.approx(weights)


def fitted(table: pd.DataFrame, **settings: Any) -> np.ndarray:
    scorer = RewardModel(**{**EXACT, **settings}).train(learning(policy_of(REFERENCE), feedback={"pairs": table}))
    return scorer.table.detach().numpy()[0]  # type: ignore[attr-defined]


def test_a_reward_model_of_pairs_with_margins_and_weights() -> None:
    """[num] a margin is added to the difference; a weight of 0 leaves a pair out, and weights are counts."""
    table = all_pairs(bradley_terry(UTILITIES))
    lead = np.array([UTILITIES[int(a[-1])] - UTILITIES[int(b[-1])] for a, b in zip(table.output_1, table.output_2)])
    scores = fitted(table.assign(label_margin=lead))
    assert scores - scores[0] == pytest.approx(2 * (UTILITIES - UTILITIES[0]), abs=5e-3)
    wrong = table.assign(preference=3 - table["preference"])
    both = pd.concat([table.assign(label_weight=1.0), wrong.assign(label_weight=0.0)], ignore_index=True)
    scores = fitted(both)
    assert scores - scores[0] == pytest.approx(UTILITIES - UTILITIES[0], abs=5e-3)
    three_to_one = pd.concat([table.assign(label_weight=3.0), wrong.assign(label_weight=1.0)], ignore_index=True)
    scores = fitted(three_to_one)
    p = expit(UTILITIES[1] - UTILITIES[0])
    assert scores[1] - scores[0] == pytest.approx(np.log((0.5 * p + 0.25) / (0.75 - 0.5 * p)), abs=5e-2)


def test_pairs_without_the_columns_are_read_as_before_and_wrong_ones_refused() -> None:
    table = all_pairs(bradley_terry(UTILITIES))
    given = learning(policy_of(REFERENCE), feedback={"pairs": table})
    pairs = Preferences.read(given)
    assert pairs.weight is None and pairs.lead is None and pairs.select(np.array([1])).weight is None
    with pytest.raises(UserError, match=r"row 0 has label_weight -1\.0, which is no number from 0 on"):
        Preferences.read(replace(given, feedback={"pairs": table.assign(label_weight=-1.0)}))
    with pytest.raises(UserError, match="row 0 has label_margin nan"):
        Preferences.read(replace(given, feedback={"pairs": table.assign(label_margin=np.nan)}))


def some_wrong(seed: int = 0, size: int = 12, flips: float = 0.1) -> tuple[pd.DataFrame, np.ndarray]:
    """All pairs of responses in a line, labelled without noise but for flips, and which were flipped."""
    order = (np.arange(size)[:, None] > np.arange(size)[None]) * 1.0
    table = all_pairs(order)
    wrong = np.random.default_rng(seed).random(len(table)) < flips
    return table.assign(preference=np.where(wrong, 3 - table["preference"], table["preference"])), wrong


@pytest.mark.parametrize("remedy", ["flip", "margin", "flip+margin", "soft+margin", "personal", "history"])
def test_what_an_ensemble_makes_of_wrong_labels(remedy: Any) -> None:
    table, wrong = some_wrong()
    log, record = recorder()
    start = policy_of(np.full(12, 1 / 12))
    settings = {**EXACT, "epochs": 6, "batch_size": 16, "micro_batch_tokens": 100_000}
    method = DenoisedRewardModel(**settings, remedy=remedy, members=2, share=float(wrong.mean()))
    given = replace(learning(start, feedback={"pairs": table.assign(annotator="one")}), log=record)
    scores = method.train(given).table.detach().numpy()[0]  # type: ignore[attr-defined]
    assert np.corrcoef(np.arange(12), scores)[0, 1] > 0.8
    assert [line["step"] for line in log] == list(range(len(log)))
    margins = np.tile(np.subtract.outer(np.arange(12.0), np.arange(12.0))[~np.eye(12, dtype=bool)], (2, 1))
    made = method.denoised(Preferences.read(given), margins, table.assign(annotator="one")["annotator"])
    if "flip" in remedy:  # the true strengths tell every wrong label
        right = np.sign(1.5 - made["preference"]) == np.sign(margins[0])
        assert right.all()
    if remedy in ("personal", "history"):
        weight = made["label_weight"]
        assert weight[wrong].mean() < 0.8 * weight[~wrong].mean() and weight.min() >= 0
    if "margin" in remedy:
        assert made["label_margin"] == pytest.approx(margins[0])


def test_strengths_tell_flipped_labels_and_turning_them_round_costs_where_none_is_flipped() -> None:
    """[trend] the strongest labels are right and the weakest wrong, fewer of them where fewer are flipped."""
    many, few, clean = (LabelStrength(flips=flips, pairs=400, held_out=1000, members=3) for flips in (0.25, 0.1, 0.0))
    found, rarer = (
        pd.concat([study.tables(seed)["detection"] for seed in (1, 2)]).groupby("method").mean()
        for study in (many, few)
    )
    assert found.loc["ensemble", "auroc"] > 0.75 and found.loc["ensemble", "precision"] > 0.6
    assert (
        found.loc["ensemble", "precision"] > rarer.loc["ensemble", "precision"] > 3 * rarer.loc["chance", "precision"]
    )
    assert found.loc["ensemble", "strongest"] < 0.5 * found.loc["chance", "strongest"]
    right = clean.tables(1)["accuracy"].set_index("method")["right"]
    assert right["flip"] < right["raw"] and abs(right["margin"] - right["raw"]) < 0.01
    assert len(clean.tables(1)["detection"]) == 0
