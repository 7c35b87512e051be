"""Measures: known answers."""

import numpy as np
import pandas as pd
import pytest

from eval.measures.column import Column
from eval.measures.feature import Feature
from eval.measures.frontier import Frontier, first_crossing
from eval.measures.logged import Logged
from eval.measures.rank_agreement import RankAgreement
from eval.measures.similarity import Similarity, mean_overlap
from eval.measures.win import Win
from farm.base.errors import UserError
from farm.roles import config, named_configs
from farm.roles.protocols import Measure

OUTPUTS = pd.DataFrame(
    {
        "method": ["a", "a", "a", "b"],
        "instruction": ["x", "x", "y", "x"],
        "gold": [1.0, 3.0, 5.0, 9.0],
        "persona": ["p", "q", "p", "p"],
        "output": ["one two", "three", "one two two", "four"],
    }
)
METRICS = pd.DataFrame(
    {
        "method": ["a"] * 4 + ["b"],
        "step": [2, 0, 1, 3, 0],  # in any order
        "kl": [2.0, 0.0, 1.0, np.nan, 5.0],
        "gold": [4.0, 0.0, 2.0, np.nan, 1.0],
        "regret": [1.0, 8.0, 2.0, 1.0, 0.0],
    }
)


def test_a_column_is_of_a_method_and_of_a_group() -> None:
    assert Column().values({"outputs": OUTPUTS}, "a")["value"].tolist() == [1, 3, 5]
    found = Column(where={"persona": "p"}).values({"outputs": OUTPUTS}, "a")
    assert found["value"].tolist() == [1, 5] and found["instruction"].tolist() == ["x", "y"]
    with pytest.raises(ValueError, match="no column `golden`; did you mean `gold`"):
        Column("golden").values({"outputs": OUTPUTS}, "a")
    with pytest.raises(ValueError, match="no row has persona r"):
        Column(where={"persona": "r"}).values({"outputs": OUTPUTS}, "a")
    several = Column(where={"instruction": ["x", "y"]}, unless={"persona": "q"}).values({"outputs": OUTPUTS}, "a")
    assert several["value"].tolist() == [1, 5]
    with pytest.raises(ValueError, match="no row has persona r"):
        Column(unless={"persona": ["p", "r"]}).values({"outputs": OUTPUTS}, "a")


class Seen:
    """Sees how often a text says "two"."""

    gold_weights: dict[str, float] = {}  # noqa: RUF012

    def __call__(self, instructions: list[str], outputs: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"two": [float(text.count("two")) for text in outputs]})


def test_a_feature_is_the_share_of_answers_that_have_it_within_a_scope_and_outside() -> None:
    found = Feature("two", Seen()).values({"outputs": OUTPUTS}, "a")
    assert found["value"].tolist() == [1, 0, 1] and found["instruction"].tolist() == OUTPUTS["instruction"][:3].tolist()
    assert Feature("two", Seen(), least=2).values({"outputs": OUTPUTS}, "a")["value"].tolist() == [0, 0, 1]
    assert Feature("two", Seen(), unless={"persona": "p"}).values({"outputs": OUTPUTS}, "a")["value"].tolist() == [0]
    with pytest.raises(ValueError, match="no feature `tow`; did you mean `two`"):
        Feature("tow", Seen()).values({"outputs": OUTPUTS}, "a")


def test_a_win_is_of_the_method_and_a_missing_verdict_has_no_value() -> None:
    table = pd.DataFrame({"method": "a", "instruction": list("wxyz"), "preference": [1.0, 1.5, 2.0, np.nan]})
    found = Win("humans").values({"judge_humans": table}, "a")["value"]
    assert found[:3].tolist() == [0, 0.5, 1] and np.isnan(found[3])
    assert Win("humans").tables == ("judge_humans",)


def judged(**shares: float) -> pd.DataFrame:
    """Verdicts on ten pairs of each method, of which it wins so many."""
    rows = [(m, 2.0 if k < 10 * share else 1.0) for m, share in shares.items() for k in range(10)]
    return pd.DataFrame(rows, columns=["method", "preference"])


def test_rankings_are_compared_with_those_of_a_variant_beside() -> None:
    here = {"judge_judge": judged(sft=0.5, a=0.6, b=0.7, c=0.9), "judge_humans": judged(sft=0.9, a=0.8, b=0.7, c=0.2)}
    there = {"judge_judge": judged(sft=0.2), "judge_humans": judged(b=0.6, sft=0.4, a=0.7, c=0.8, unknown=0.1)}
    measure = RankAgreement(beside={"annotator": "human"}, least=0.5)
    assert measure.values_beside(here, there, "sft")["value"].tolist() == [pytest.approx(0.8 - 0.5)]
    assert RankAgreement().values(here, "sft")["value"].tolist() == [pytest.approx(-1.0)]
    assert set(measure.tables) == {"judge_judge", "judge_humans"}
    with pytest.raises(ValueError, match="three methods or more"):
        measure.values_beside({"judge_judge": judged(a=0.1, b=0.2)}, there, "a")


def test_gold_at_equal_kl_is_where_the_curve_first_reaches_it() -> None:
    assert Frontier(at=1.5).values({"metrics": METRICS}, "a")["value"].tolist() == [3.0]
    x = np.array([0.0, 1.0, 0.5, 2.0])  # it falls back, and the first time counts
    assert first_crossing(x, x**2, 0.75) == pytest.approx(0.75)
    assert first_crossing(x, x**2, 2.0) == 4.0
    assert np.isnan(first_crossing(x, x, 2.1)) and np.isnan(first_crossing(x + 1, x, 0.5))


def test_two_methods_on_one_curve_have_equal_gold_at_equal_kl_however_far_they_go() -> None:
    x = np.linspace(0, 3, 31)
    short, long = first_crossing(x[:21], np.sqrt(x[:21]), 1.2), first_crossing(x[::2], np.sqrt(x[::2]), 1.2)
    assert short == pytest.approx(long, abs=0.01) and short == pytest.approx(np.sqrt(1.2), abs=0.01)


def test_regret_is_summed_and_its_second_half_alone_where_asked() -> None:
    def of(**settings: object) -> float:
        return float(Logged("regret", **settings).values({"metrics": METRICS}, "a")["value"].item())  # type: ignore[arg-type]

    assert (of(how="sum"), of(how="sum", since=0.5), of(how="last"), of(how="max"), of(how="mean")) == (12, 2, 1, 8, 3)
    with pytest.raises(ValueError, match="no column `queries`"):
        Logged("queries").values({"metrics": METRICS}, "a")
    with pytest.raises(UserError, match="`since` = 1 is wrong"):  # nothing would be left
        config.build(Measure, {"use": "logged", "name": "regret", "since": 1})


def test_similarity_is_the_f_of_words_with_the_answers_to_other_instructions() -> None:
    assert mean_overlap([["a", "b"], ["a", "b"], ["c"]]).tolist() == [0.5, 0.5, 0.0]
    # "one two" against "one two two": 2 words of 2 and 3
    found = Similarity().values({"outputs": OUTPUTS}, "a")
    assert found["value"].tolist() == pytest.approx([0.8, 0.8])
    collapsed = OUTPUTS.assign(output="the same words")
    assert Similarity().values({"outputs": collapsed}, "a")["value"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="fewer than two"):
        mean_overlap([["a"]])


def test_the_interval_of_a_similarity_is_the_jackknifes() -> None:
    """Leaving an answer out changes its pairs with all others, so one number an answer errs twice as much."""
    rng, n = np.random.default_rng(0), 12
    texts = [" ".join(rng.choice(list("abcdefgh"), size=rng.integers(2, 9))) for _ in range(n)]
    outputs = pd.DataFrame({"method": "a", "instruction": [f"i{k}" for k in range(n)], "output": texts})
    found = Similarity().values({"outputs": outputs}, "a")["value"].to_numpy()
    words = [text.split() for text in texts]
    without = np.array([mean_overlap(words[:k] + words[k + 1 :]).mean() for k in range(n)])
    jackknife = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    assert found.mean() == pytest.approx(mean_overlap(words).mean())
    assert found.std(ddof=1) / np.sqrt(n) == pytest.approx(jackknife * (n - 2) / (n - 1))


def test_every_measure_is_found_by_its_name() -> None:
    known = named_configs.names("measures")
    assert {"column", "frontier", "logged", "similarity", "win"} <= set(known)
    seen = {"feature": "example", "features": {"class": "farm.worlds.pocket.gold.PocketFeatures"}}
    settings = {"feature": seen, "frontier": {"at": 1.0}, "logged": {"name": "regret"}}
    for name in known:
        found = config.build(Measure, {"use": name, **settings.get(name, {})})
        assert isinstance(found, Measure) and len(found.tables)
