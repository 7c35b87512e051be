"""Labels of what is accepted alone, and panels of auditors: known answers."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from annotators.feedback.checks import AnswerChecker
from annotators.feedback.panel import Panel
from annotators.feedback.ratings import PersonRater
from annotators.feedback.sets import SetAppraiser
from annotators.noise.flip import Flip
from annotators.noise.one_sided import OneSided
from tests.annotators.conftest import features_of

N = 20_000
QUALITY = norm.ppf((np.arange(N) + 0.5) / N)
"""standard normal"""
ROWS = pd.DataFrame({"instruction": [f"x {i}" for i in range(N)], "output": [str(i) for i in range(N)]})


def one_sided(**settings: Any) -> OneSided:
    features = features_of(u=QUALITY)
    return OneSided(PersonRater(features, levels=100, middle=50.0, slope=10.0, noise=0.0), features, **settings)


def test_the_mean_of_what_is_accepted_is_too_good_and_propensities_make_up_for_it() -> None:
    """[num] .564 for 0 where score = quality + N(0, 1) > 0 decides; with exploration and 1 / propensity 0."""
    table = one_sided(explore=0.0).rate(ROWS, seed=1)
    e = table["propensity"].to_numpy()
    assert (QUALITY * e).sum() / e.sum() == pytest.approx(0.564, abs=1e-3)
    seen = table["status"] == "ok"
    assert ((table["score"][seen] - 50) / 10).mean() == pytest.approx(0.564, abs=4 * 0.83 / np.sqrt(N / 2))
    explored = one_sided(explore=0.05).rate(ROWS, seed=1)
    e, shown = explored["propensity"].to_numpy(), (explored["status"] == "ok").to_numpy()
    assert e.min() > 0.05
    error = np.sqrt((QUALITY**2 * (1 / e - 1)).sum()) / N  # of the sum over what is seen of q / e, by its draws
    assert (QUALITY[shown] / e[shown]).sum() / N == pytest.approx(0, abs=4 * error)
    assert explored["score"][~shown].isna().all() and set(explored["status"][~shown]) == {"unobserved"}
    assert shown.mean() == pytest.approx(e.mean(), abs=4 * 0.5 / np.sqrt(N))


def test_neither_order_nor_a_part_of_the_rows_changes_who_is_accepted() -> None:
    whole = one_sided().rate(ROWS.iloc[:300], seed=2)
    mixed = one_sided().rate(ROWS.iloc[:300].sample(frac=1, random_state=0), seed=2).sort_index()
    pd.testing.assert_frame_equal(whole, mixed)
    part = one_sided().rate(ROWS.iloc[100:150], seed=2)
    pd.testing.assert_frame_equal(part, whole.iloc[100:150])


def test_what_is_rejected_is_not_asked_about_and_checks_are_as_one_sided() -> None:
    features = features_of(u=QUALITY)
    table = OneSided(AnswerChecker(features, feature="u", at_least=0.0), features).check(ROWS.iloc[::40], seed=1)
    seen = table["status"] == "ok"
    assert table["right"].notna().equals(seen) and 0.3 < seen.mean() < 0.7
    assert table["right"][seen].astype(float).mean() > 0.65  # half of all are right
    for wrong in ({"explore": 1.5}, {"threshold": np.inf}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            one_sided(**wrong)
    with pytest.raises(ValueError, match="it wraps ratings, checks, and appraiser gives sets"):
        OneSided(SetAppraiser(features), features)


AUDITORS = np.array(list(product((0.0, 1.0), repeat=3)))
"""what three auditors say, every way they can, [8, 3]"""


@pytest.mark.parametrize(
    ("rule", "sensitivity", "false_alarm"), [("any", 0.973, 0.271), ("majority", 0.784, 0.028), ("all", 0.343, 0.001)]
)
def test_panels_of_three(rule: Any, sensitivity: float, false_alarm: float) -> None:
    """[num] of three auditors who find .7 of what is there and are wrong in .1."""
    features = features_of(u=np.zeros(8), **{f"says {k}": AUDITORS[:, k] for k in range(3)})
    three = [AnswerChecker(features, name=f"auditor {k}", feature=f"says {k}") for k in range(3)]
    found = Panel(three, rule).check(ROWS.iloc[:8], seed=1)["right"].astype(float).to_numpy()
    for p, known in ((0.7, sensitivity), (0.1, false_alarm)):
        chance = np.where(AUDITORS == 1, p, 1 - p).prod(1)
        assert chance @ found == pytest.approx(known, abs=5e-4)


def test_a_panel_of_auditors_who_draw_alike_is_one_of_them_whatever_the_rule() -> None:
    features = features_of(u=QUALITY)
    auditor = AnswerChecker(features, feature="u", at_least=0.0, passes_wrong=0.1, fails_right=0.3)
    alone = auditor.check(ROWS.iloc[::20], seed=3)["right"].tolist()
    for rule in ("any", "majority", "all"):
        assert Panel([auditor] * 3, rule).check(ROWS.iloc[::20], seed=3)["right"].tolist() == alone  # type: ignore[arg-type]


def test_a_panel_lacks_what_one_of_it_lacks_and_costs_what_all_cost() -> None:
    features = features_of(u=np.zeros(3))
    rows = ROWS.iloc[:3].assign(answer=["0", None, "9"])
    by_feature = AnswerChecker(features, name="other", feature="u", at_least=1.0)
    table = Panel([AnswerChecker(features), by_feature], "any").check(rows, seed=1)
    assert table["right"].tolist() == [True, None, False] and table["status"].tolist() == ["ok", "unobserved", "ok"]
    assert (
        Flip(Panel([by_feature]), 1.0).check(rows, seed=1)["right"].tolist() == [True] * 3
    )  # a wrapper that is wrapped


def test_both_are_given_on_real_texts_by_the_command(annotate: Any, tmp_path: Path) -> None:
    rows = [{"instruction": f"Name fruit {i}.", "output": f"Figs and {i} plums.", "answer": "figs"} for i in range(40)]
    (tmp_path / "outputs.json").write_text(json.dumps(rows))
    command = [tmp_path / "outputs.json", "--out", tmp_path / "out.json", "--json", "--annotators"]
    panel = json.loads(annotate(*command, "panel"))
    assert panel["kind"] == "checks" and panel["status"] == {"ok": 40} and 0.5 < panel["right"] < 1
    ratings = json.loads(annotate(*command, "one_sided", "--kind", "ratings"))
    assert sum(ratings["status"].values()) == 40 and {"score", "propensity"} <= set(pd.read_json(tmp_path / "out.json"))
