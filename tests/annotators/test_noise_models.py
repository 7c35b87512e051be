"""Confusions, ability, fatigue, expertise, spam, drift, hindsight, observation: each with a known answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from annotators.noise.ability import Ability
from annotators.noise.confusion import Confusion
from annotators.noise.expertise import Expertise
from annotators.noise.fatigue import Fatigue
from annotators.noise.flip import Flip
from annotators.noise.observation import Observed
from annotators.noise.spam import Spammer
from annotators.noise.tie_band import TieBand
from annotators.people.hindsight import Hindsight
from annotators.people.logit import LogitAnnotator
from annotators.people.pool import Pool
from farm.base.errors import UserError
from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.tables.records import annotation_table
from farm.votes.competence import dawid_skene, glad, votes
from farm.worlds.text_features import TextFeatures

NEW = (
    "confusion ability adversary fatigue drift opinionated expertise spam self_enhancement sycophancy contexts "
    "unobserved thurstone davidson_ties rao_kupper_ties hindsight"
).split()


@pytest.fixture
def oracle(features_of):
    """Prefers the larger of 40 numbers, always."""
    return LogitAnnotator(features_of(u=np.linspace(0, 3, 40)), name="oracle", greedy=True)


def mixed(pairs_of, n: int = 8000, seed: int = 1) -> pd.DataFrame:
    generator = np.random.Generator(np.random.Philox(seed))
    pairs = pairs_of(*generator.integers(0, 40, (2, n)))
    return pairs[pairs["output_1"] != pairs["output_2"]].reset_index(drop=True)


@pytest.mark.parametrize("name", NEW)
def test_every_new_yaml_builds_and_annotates(name):
    pairs = pd.DataFrame({
        "instruction": [f"Write python {i}." for i in range(8)], "output_1": ["A cat."] * 8,
        "output_2": [f"A dog sat {i}." for i in range(8)], "generator_1": "mine", "generator_2": "other",
        "agreement_1": 1.0, "agreement_2": 0.0,
    })  # fmt: skip
    built = config.build(Annotator, name, Context(features=TextFeatures()))
    table = built.annotate(pairs, seed=0)
    assert len(table) == 8 and set(table["status"]) <= {"ok", "unobserved"}
    swap = {"output_1": "output_2", "output_2": "output_1", "generator_1": "generator_2", "generator_2": "generator_1"}
    shuffled = built.annotate(pairs.iloc[::-1], seed=0).iloc[::-1].reset_index(drop=True)
    pd.testing.assert_series_equal(table["preference"], shuffled["preference"])
    assert len(built.annotate(pairs.rename(columns=swap), seed=0)) == 8


def test_confusion_rows_are_its_rates_and_dawid_skene_finds_them(oracle, pairs_of):
    pairs = mixed(pairs_of)
    truth = oracle.annotate(pairs, seed=0)["preference"].to_numpy()
    matrix = [[0.9, 0.1], [0.3, 0.7]]
    said = Confusion(oracle, matrix).annotate(pairs, seed=0)["preference"].to_numpy()
    for row, label in enumerate((1.0, 2.0)):
        assert (said[truth == label] == 1.0).mean() == pytest.approx(matrix[row][0], abs=0.02)
    # a symmetric matrix is a flip
    flipped = Confusion(oracle, [[0.75, 0.25], [0.25, 0.75]]).annotate(pairs, seed=0)["preference"].to_numpy()
    assert (flipped == truth).mean() == pytest.approx(0.75, abs=0.015)
    people = [Confusion(oracle, [[a, 1 - a], [1 - a, a]]) for a in (0.9, 0.8, 0.65)]
    tables = [p.annotate(pairs, seed=k).assign(annotator=str(k)) for k, p in enumerate(people)]
    found = dawid_skene(votes(pd.concat(tables))[0])
    assert found.accuracy == pytest.approx([0.9, 0.8, 0.65], abs=0.03)
    with pytest.raises(ValueError, match="add up to 1"):
        Confusion(oracle, [[0.9, 0.2], [0.1, 0.9]])


def test_confusion_with_ties(features_of, pairs_of):
    same = LogitAnnotator(features_of(u=[1.0, 1.0, 2.0]), name="o", greedy=True)
    pairs = pairs_of(np.zeros(4000, int), np.ones(4000, int))
    said = Confusion(same, [[1, 0, 0], [0.2, 0.5, 0.3], [0, 0, 1]]).annotate(pairs, seed=0)["preference"]
    for label, share in ((1.0, 0.2), (1.5, 0.5), (2.0, 0.3)):
        assert (said == label).mean() == pytest.approx(share, abs=0.025)


def test_ability_is_glads_and_glad_finds_it_again(oracle, pairs_of):
    pairs = mixed(pairs_of, 3000)
    truth = oracle.annotate(pairs, seed=0)["preference"].to_numpy()
    constant = Ability(oracle, ability=1.5, easiness_spread=0.0).annotate(pairs, seed=0)["preference"]
    assert (constant == truth).mean() == pytest.approx(expit(1.5), abs=0.02)
    adversary = Ability(oracle, ability=-2.0, easiness_spread=0.0).annotate(pairs, seed=0)["preference"]
    assert (adversary == truth).mean() == pytest.approx(expit(-2.0), abs=0.02)
    abilities = [3.0, 2.0, 1.0, 0.5, -1.5]
    people = [Ability(oracle, ability=a, name=f"p{k}") for k, a in enumerate(abilities)]
    tables = [p.annotate(pairs, seed=0).assign(annotator=p.name) for p in people]
    found = glad(votes(pd.concat(tables))[0])
    assert np.corrcoef(found.ability, abilities)[0, 1] > 0.97 and found.ability[-1] < 0


def test_adversaries_are_detected_by_dawid_and_skene(oracle, pairs_of):
    pairs = mixed(pairs_of, 2000)
    rates = (0.1, 0.2, 0.25, 0.8)
    tables = [Flip(oracle, r).annotate(pairs, seed=k).assign(annotator=str(k)) for k, r in enumerate(rates)]
    accuracy = dawid_skene(votes(pd.concat(tables))[0]).accuracy
    assert accuracy == pytest.approx([0.9, 0.8, 0.75, 0.2], abs=0.04)


def test_fatigue_follows_its_curve(oracle, pairs_of):
    pairs = mixed(pairs_of, 12_000)
    pairs["place_in_session"] = np.arange(len(pairs)) % 200
    truth = oracle.annotate(pairs, seed=0)["preference"].to_numpy()
    tired = Fatigue(oracle, fresh=0.1, tired=0.9, patience=50.0).annotate(pairs, seed=0)["preference"].to_numpy()
    wrong = pd.Series(tired != truth).groupby(pairs["place_in_session"] // 40).mean()
    place = np.arange(200)
    lapse = pd.Series(0.1 + 0.8 * (1 - np.exp(-place / 50))).groupby(place // 40).mean()
    np.testing.assert_allclose(wrong, lapse / 2, atol=0.035)
    drawn = Fatigue(oracle, tired=1.0, patience=1e-6).annotate(mixed(pairs_of, 4000), seed=0)
    assert drawn["coin"].mean() == pytest.approx(0.99, abs=0.02)


def test_expertise_has_a_rate_for_each_topic(oracle, pairs_of):
    pairs = mixed(pairs_of)
    pairs["topic"] = np.where(np.arange(len(pairs)) % 2, "code", "law")
    truth = oracle.annotate(pairs, seed=0)["preference"]
    said = Expertise(oracle, {"code": 0.05, "law": 0.4}).annotate(pairs, seed=0)["preference"]
    for topic, rate in (("code", 0.05), ("law", 0.4)):
        rows = pairs["topic"] == topic
        assert (said != truth)[rows].mean() == pytest.approx(rate, abs=0.02)
    words = pairs.drop(columns="topic").assign(instruction=[f"My law case {i}" for i in range(len(pairs))])
    by_word = Expertise(oracle, {"code": 0.0, "law": 0.4}, other=0.0).annotate(words, seed=0)["preference"]
    assert (by_word != oracle.annotate(words, seed=0)["preference"]).mean() == pytest.approx(0.4, abs=0.02)


def test_spam_dilutes_a_pool(oracle, pairs_of):
    pairs = mixed(pairs_of)
    first = Spammer("first").annotate(pairs, seed=0)
    assert (first["preference"] == 1).all() and (Spammer("tie").annotate(pairs, seed=0)["preference"] == 1.5).all()
    coin = Spammer().annotate(pairs, seed=0)["preference"]
    assert (coin == 1).mean() == pytest.approx(0.5, abs=0.02)
    pool = Pool([oracle, Spammer()], weights=[0.8, 0.2])
    right = pool.annotate(pairs, seed=0)["preference"] == oracle.annotate(pairs, seed=0)["preference"]
    assert right.mean() == pytest.approx(0.9, abs=0.015)


def test_opinions_drift_as_an_ar1_process(features_of, pairs_of):
    """Correlation of the logits of replicates 0 and k is ρ^k; at ρ = 1 a person agrees with themselves at any lag."""
    flat = features_of(u=np.zeros(2))
    pairs = pairs_of(np.zeros(6000, int), np.ones(6000, int))

    def labels(persistence: float) -> list[np.ndarray]:
        person = LogitAnnotator(flat, name="p", opinion_spread=60.0, opinion_persistence=persistence)
        return [person.annotate(pairs, seed=0, replicate=k)["preference"].to_numpy() for k in range(4)]

    drifting, steady = labels(0.7), labels(1.0)
    for lag in (1, 2, 3):
        # two signs of normals with correlation r agree with probability 1/2 + asin(r) / π
        expected = 0.5 + np.arcsin(0.7**lag) / np.pi
        assert (drifting[0] == drifting[lag]).mean() == pytest.approx(expected, abs=0.02)
        assert (steady[0] == steady[lag]).mean() > 0.97
    others = LogitAnnotator(flat, name="q", opinion_spread=60.0).annotate(pairs, seed=0)["preference"]
    assert (others == steady[0]).mean() == pytest.approx(0.5, abs=0.02)


def test_latent_quality_makes_margins_that_everybody_shares(features_of, pairs_of):
    flat = features_of(u=np.zeros(2))
    pairs = pairs_of(np.zeros(6000, int), np.ones(6000, int))
    one, two = (LogitAnnotator(flat, name=n, latent_spread=60.0) for n in "ab")
    assert (one.annotate(pairs, seed=0)["preference"] == two.annotate(pairs, seed=5)["preference"]).mean() > 0.97
    p = LogitAnnotator(flat, latent_spread=2.0).annotate(pairs, seed=0)["p_first"]
    logits = np.log(p / (1 - p))
    assert logits.mean() == pytest.approx(0, abs=0.08) and logits.std() == pytest.approx(2.0, rel=0.04)
    # qualities belong to texts: no circles
    three = pd.DataFrame({"instruction": "x", "output_1": ["0", "1", "2"], "output_2": ["1", "2", "0"]})
    small = features_of(u=np.zeros(3))
    p = LogitAnnotator(small, latent_spread=2.0).annotate(three, seed=0)["p_first"].to_numpy()
    assert np.log(p / (1 - p)).sum() == pytest.approx(0, abs=1e-9)


def test_pairs_differ_in_inviting_ties(features_of, pairs_of):
    flat = features_of(u=np.zeros(2))
    pairs = pairs_of(np.zeros(6000, int), np.ones(6000, int))

    def twice(spread: float) -> float:
        who = [LogitAnnotator(flat, name=n, ties="rao-kupper", tie_width=0.6, tie_spread=spread) for n in "ab"]
        one, two = (a.annotate(pairs, seed=0)["preference"] == 1.5 for a in who)
        return float((one & two).mean() / (one.mean() * two.mean()))

    assert twice(0.0) == pytest.approx(1.0, abs=0.06)
    assert twice(1.0) > 1.3


def test_hindsight_is_the_marketplace_of_rlhs(features_of, pairs_of):
    """Items have the feature with probability q. In foresight a claim (+1) beats honesty (0) always; in hindsight it is
    worth +1 or -1, so that it wins with probability q, and its mean utility is 2 q - 1."""
    q, n = 0.2, 5000
    has = np.arange(n) < q * n
    # texts: 0 an honest answer, 1 a claim that is true, 2 a claim that is false
    features = features_of(gold={"came_true": 1.0}, promise=[0.0, 1.0, 1.0], came_true=[0.0, 1.0, -1.0])
    pairs = pairs_of(np.where(has, 1, 2), np.zeros(n, int))

    def claims_win(share: float, **how: bool) -> float:
        person = Hindsight(features, {"promise": 1.0}, hindsight=share, temperature=1e-3, **how)
        return float((person.annotate(pairs, seed=0)["preference"] == 1).mean())

    assert claims_win(0.0) == 1.0 and claims_win(1.0) == pytest.approx(q)
    assert claims_win(0.5) == pytest.approx(0.5 + 0.5 * q, abs=0.02)
    assert claims_win(0.75, blend=True) == pytest.approx(q)  # .25 - .75 < 0 where the claim is false
    assert np.where(has, 1, -1).mean() == pytest.approx(2 * q - 1)


def test_what_is_observed_is_biased_and_weighting_mends_it(features_of, pairs_of):
    features = features_of(u=np.linspace(0, 3, 40))
    person = LogitAnnotator(features, name="p")
    pairs = mixed(pairs_of, 12_000)
    full = (person.annotate(pairs, seed=0)["preference"] == 1).mean()
    table = Observed(person, base=-1.0, by_verdict=1.5).annotate(pairs, seed=0)
    seen = table[table["status"] == "ok"]
    assert (table["status"] == "unobserved").mean() > 0.3 and table["preference"].isna().sum() == len(table) - len(seen)
    first, weight = (seen["preference"] == 1).to_numpy(), 1 / seen["propensity"].to_numpy()
    assert first.mean() > full + 0.12
    assert (first * weight).sum() / weight.sum() == pytest.approx(full, abs=0.025)
    clear = Observed(person, base=-1.0, by_margin=1.0).annotate(pairs, seed=0)
    again = clear[clear["status"] == "ok"]["p_first"]
    assert (again - 0.5).abs().mean() > (person.annotate(pairs, seed=0)["p_first"] - 0.5).abs().mean() + 0.02
    with pytest.raises(UserError, match="needs probabilities"):
        Observed(Silent(), by_margin=1.0).annotate(pairs, seed=0)


class Silent:
    """Gives labels, and probabilities for every second pair only."""

    name = "silent"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        p = np.where(np.arange(len(pairs)) % 2, 0.5, np.nan)
        return annotation_table(pairs, "silent", np.ones(len(pairs)), p, seed=seed, replicate=replicate)


def test_a_tie_band_without_a_probability_keeps_the_label(pairs_of):
    """Where there is no probability there is no telling how small the difference was: the label stays, and no tie."""
    pairs = pairs_of(np.zeros(10, int), np.ones(10, int))
    said = TieBand(Silent(), width=0.5).annotate(pairs, seed=0)["preference"].to_numpy()
    np.testing.assert_array_equal(said, np.where(np.arange(10) % 2, 1.5, 1.0))
