"""Pools: who is asked, and that a pool's shared work changes no label."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from annotators.noise.flip import Flip
from annotators.people.logit import LogitAnnotator
from annotators.people.pool import PersonaPool, Pool
from farm.tables.records import PairIds


@pytest.fixture
def world(features_of, pairs_of):
    generator = np.random.Generator(np.random.Philox(11))
    features = features_of(
        {"u": 1.0, "v": 0.5},
        u=generator.normal(size=200),
        v=generator.normal(size=200),
        length=generator.integers(1, 90, 200),
        lists=generator.integers(0, 2, 200),
    )
    return features, pairs_of(*generator.integers(0, 200, (2, 5000)))


def test_shared_work_changes_no_label(world):
    """The pool's one look at the texts gives the same table as asking each annotator for their rows."""
    features, pairs = world
    people = PersonaPool(features, position_bias_spread=0.3, list_bias_spread=0.3, cycle=0.2, tie_width=0.05).people
    shared = Pool(list(people)).annotate(pairs, seed=4)
    which = Pool(list(people)).assigned(PairIds(pairs), seed=4)
    for i, person in enumerate(people):
        own = person.annotate(pairs[which == i], seed=4)
        pd.testing.assert_frame_equal(shared[which == i], own)


def test_mixed_pools_ask_each_member(world):
    features, pairs = world
    members = [LogitAnnotator(features, name="a"), Flip(LogitAnnotator(features, name="b"), 0.25)]
    table = Pool(members).annotate(pairs, seed=4)
    which = Pool(members).assigned(PairIds(pairs), seed=4)
    assert set(table["annotator"][which == 0]) == {"a"} and set(table["annotator"][which == 1]) == {"b"}
    assert not table["coin"][which == 0].any()
    own = members[1].annotate(pairs[which == 1], seed=4)
    np.testing.assert_array_equal(own["preference"], table["preference"][which == 1])
    nothing = Flip(Pool(members)).annotate(pairs.iloc[:0], seed=4)
    assert nothing.empty and {"annotator", "preference", "flipped"} <= set(nothing.columns)


def test_assignment(world):
    features, pairs = world
    members = [LogitAnnotator(features, name=name) for name in "abcd"]
    shares = Pool(members, weights=[1, 1, 2, 0]).annotate(pairs, seed=1)["annotator"].value_counts(normalize=True)
    assert shares["c"] == pytest.approx(0.5, abs=0.03) and "d" not in shares
    doubled = pd.concat([pairs, pairs.assign(output_2="0", output_1="1")])
    by_instruction = Pool(members, assign="instruction").annotate(doubled, seed=1)
    assert (by_instruction.groupby("instruction")["annotator"].nunique() == 1).all()
    by_pair = Pool(members).annotate(doubled, seed=1)
    assert by_pair.groupby("instruction")["annotator"].nunique().mean() == pytest.approx(1.75, abs=0.05)
    again = Pool(members).annotate(pairs, seed=1, replicate=1)["annotator"].to_numpy()
    assert np.mean(again == Pool(members).annotate(pairs, seed=1)["annotator"]) == pytest.approx(0.25, abs=0.03)


def test_a_pool_in_a_pool_draws_anew(world):
    features, pairs = world
    inner = Pool([LogitAnnotator(features, name="a"), LogitAnnotator(features, name="b")])
    table = Pool([inner, LogitAnnotator(features, name="c")], name="outer").annotate(pairs, seed=1)
    shares = table["annotator"].value_counts(normalize=True)
    assert shares["a"] == pytest.approx(0.25, abs=0.03) and shares["c"] == pytest.approx(0.5, abs=0.03)


def test_people_scatter_around_the_gold_weights(world):
    features, _ = world
    people = PersonaPool(features, size=4000, length_bias=0.2).people
    for name, gold in features.gold_weights.items():
        logs = np.log([p.weights[name] / gold for p in people])
        assert logs.mean() == pytest.approx(0, abs=0.03) and logs.std() == pytest.approx(0.35, abs=0.02)
    temperatures = np.log([p.temperature / 0.8 for p in people])
    assert temperatures.mean() == pytest.approx(0, abs=0.03) and temperatures.std() == pytest.approx(0.3, abs=0.02)
    assert np.mean([p.length_bias for p in people]) == pytest.approx(0.2, abs=0.03)
    assert len({p.name for p in people}) == 4000


def test_people_are_the_same_in_a_larger_pool_and_others_under_another_seed(world):
    features, _ = world
    small, large = PersonaPool(features, size=3).people, PersonaPool(features, size=13).people
    assert small == large[:3]
    other = PersonaPool(features, size=3, seed=1).people
    assert not {p.name for p in other} & {p.name for p in small}
    assert all(a.weights != b.weights for a, b in zip(small, other, strict=True))


def test_no_spread_is_one_person_thirteen_times(world):
    features, pairs = world
    pool = PersonaPool(features, spread=0, temperature=1.0, temperature_spread=0, length_bias_spread=0)
    one = LogitAnnotator(features).annotate(pairs, seed=1)
    np.testing.assert_allclose(pool.annotate(pairs, seed=1)["p_first"], one["p_first"], atol=1e-12)


def test_features_are_computed_once_for_the_whole_pool(world):
    features, pairs = world
    PersonaPool(features).annotate(pairs, seed=1)
    assert len(features.asked) == 1


def test_sharing_people_agree_less_than_one_person_with_themselves(world):
    """Between people the labels differ by taste as well as by chance."""
    features, pairs = world
    pool = PersonaPool(features, spread=1.0, temperature=0.05, temperature_spread=0)
    one = pool.people[0]

    def agreement(judge: LogitAnnotator | PersonaPool) -> float:
        return float(
            np.mean(
                judge.annotate(pairs, seed=1)["preference"] == judge.annotate(pairs, seed=1, replicate=1)["preference"]
            )
        )

    assert agreement(one) > agreement(pool) + 0.05


def test_wrong_pools_are_refused(world):
    features, _ = world
    one = LogitAnnotator(features)
    with pytest.raises(ValueError, match="at least one"):
        Pool([])
    with pytest.raises(ValueError, match="two annotators are called `logit`"):
        Pool([one, one])
    with pytest.raises(ValueError, match="2 weights for 1"):
        Pool([one], weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="not all 0"):
        Pool([one], weights=[0.0])
    with pytest.raises(ValueError, match="size"):
        PersonaPool(features, size=0)
    with pytest.raises(ValueError, match="temperature"):
        PersonaPool(features, temperature=-1.0)


def test_p_first_is_of_the_member_that_was_asked(world):
    features, pairs = world
    pool = PersonaPool(features, length_bias_spread=0)
    table = pool.annotate(pairs, seed=1)
    row = int(np.flatnonzero(table["preference"] != 1.5)[0])
    person = next(p for p in pool.people if p.name == table["annotator"].iloc[row])
    first, second = (features.table.loc[int(pairs[c].iloc[row])] for c in ("output_1", "output_2"))
    gap = sum(w * (first[k] - second[k]) for k, w in person.weights.items()) / person.temperature
    assert logit(table["p_first"].iloc[row]) == pytest.approx(gap)
